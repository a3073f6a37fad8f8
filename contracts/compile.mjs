// Compiles StateSetAnchor.sol and writes StateSetAnchor.json beside it: `make contract`. With --print it writes
// to standard output instead. The compiler is the pinned npm package; nothing is fetched.
//
// Without a metadata hash the same source gives the same bytes everywhere, whatever its comments and path.
// evmVersion paris: no PUSH0, which some rollups still lack.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const solc = createRequire(import.meta.url)("solc");
const NAME = "StateSetAnchor";
const file = (suffix) => new URL(`${NAME}.${suffix}`, import.meta.url);
const settings = {
  evmVersion: "paris",
  optimizer: { enabled: true, runs: 200 },
  metadata: { appendCBOR: false, bytecodeHash: "none" },
};
const input = {
  language: "Solidity",
  sources: { [`${NAME}.sol`]: { content: readFileSync(file("sol"), "utf8") } },
  settings: {
    ...settings,
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
if (output.errors?.length) {
  for (const error of output.errors) console.error(error.formattedMessage);
  process.exit(1);
}
const { abi, evm } = output.contracts[`${NAME}.sol`][NAME];
const artefact = {
  contract: NAME,
  compiler: { solc: solc.version(), settings },
  abi,
  creation_code: `0x${evm.bytecode.object}`,
  runtime_code: `0x${evm.deployedBytecode.object}`,
};
const text = `${JSON.stringify(artefact, null, 1)}\n`;
if (process.argv.includes("--print")) process.stdout.write(text);
else writeFileSync(file("json"), text);
