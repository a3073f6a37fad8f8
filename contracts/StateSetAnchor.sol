// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// @title Commitments of event streams, put where their sequencer cannot take them back
/// @notice Two roads lead here. `anchor` stores one commitment of one stream, and refuses one that does not follow
/// the stream's last: its range begins where the last ended, and its state root is the hash of the last state root
/// and of what is new, computed here. `anchorMany` stores one root over the commitments of many streams; it is
/// chained to the aggregate before it, and what its leaves are, and that each stream's follow each other, is checked
/// by whoever verifies evidence. Nothing that was anchored can be changed or removed, by anybody.
/// @dev The functions, getters, events and refusals of the original StateSetAnchor keep their ABI; a UUID is the
/// first 16 bytes of its word. Hashes are SHA-256 as in the VES protocol, but for `latestSequence`'s keys and
/// `BatchAnchored`'s root, which are Keccak-256 as in the original.
contract StateSetAnchor {
    /// @dev Five slots. Ids are packed: the low halves of their words are zero.
    struct Commitment {
        bytes16 tenantId;
        bytes16 storeId;
        bytes32 eventsRoot;
        bytes32 stateRoot;
        uint64 sequenceStart;
        uint64 sequenceEnd;
        uint32 eventCount;
        address anchoredBy;
        uint64 anchoredAt; // never zero, so it tells whether there is one
    }

    /// @dev One slot: the state root is that of the last batch.
    struct Stream {
        bytes16 lastBatch;
        uint64 latestSequence;
    }

    struct Aggregate {
        uint64 firstIndex;
        uint32 count; // never zero, so it tells whether there is one
        address anchoredBy;
        uint64 anchoredAt;
        bytes32 head;
    }

    /// @dev The arguments of `anchor`, as one value.
    struct Entry {
        bytes32 batchId;
        bytes32 tenantId;
        bytes32 storeId;
        bytes32 eventsRoot;
        bytes32 stateRoot;
        uint64 sequenceStart;
        uint64 sequenceEnd;
        uint32 eventCount;
    }

    uint32 private constant AGGREGATE_LEAVES_MAX = 4096;

    /// @notice Whoever deployed this, until somebody accepts what it proposes with `transferOwnership`.
    address public owner;
    /// @notice Anybody may `anchor`. What is lost with it: a stream belongs to whoever writes to it first, and
    /// anybody can take the next range of any stream with roots of his own, after which its sequencer's own
    /// commitments are refused for ever. The chain then only says that somebody said so, and `anchoredBy` who.
    bool public permissionless;
    /// @notice Nothing can be anchored; all that was can be read.
    bool public paused;
    /// @notice Leaves of all aggregates: the first index of the next one.
    uint64 public aggregatedCount;
    address public pendingOwner;
    /// @notice A hash over all aggregates in their order; zero before the first.
    bytes32 public aggregateHead;
    mapping(address => bool) private _sequencers;
    mapping(bytes32 => Aggregate) private _aggregates;
    mapping(bytes32 => Commitment) private _commitments;
    mapping(bytes32 => Stream) private _streams;
    bytes16[] private _batches;

    event CommitmentAnchored(
        bytes32 indexed batchId,
        bytes32 indexed tenantId,
        bytes32 storeId,
        bytes32 eventsRoot,
        bytes32 stateRoot,
        uint64 sequenceStart,
        uint64 sequenceEnd,
        uint32 eventCount,
        uint256 timestamp
    );
    /// @notice After the `CommitmentAnchored` of each. `batchRoot` is the hash of the ids' words in a row.
    event BatchAnchored(bytes32 indexed batchRoot, uint256 count, uint256 timestamp);
    event AggregateAnchored(
        bytes32 indexed root,
        uint64 indexed firstIndex,
        uint32 count,
        bytes32 previousHead,
        bytes32 head,
        uint256 timestamp
    );
    event OwnershipTransferProposed(address indexed owner, address indexed proposed);
    event OwnershipTransferred(address indexed previousOwner, address indexed newOwner);
    event SequencerSet(address indexed sequencer, bool allowed);
    event PermissionlessSet(bool permissionless);
    event PausedSet(bool paused);

    modifier onlyOwner() {
        require(msg.sender == owner, "Not owner");
        _;
    }

    constructor(bool permissionless_) {
        owner = msg.sender;
        permissionless = permissionless_;
        emit OwnershipTransferred(address(0), msg.sender);
        emit PermissionlessSet(permissionless_);
    }

    // ------------------------------------------------------------------ one commitment

    /// @notice Stores the next commitment of the stream (tenantId, storeId).
    /// @param sequenceStart One more than the stream's latest; 1 for its first.
    /// @param stateRoot sha256("VES_STATE_ROOT_V1" || stream id || last state root || eventsRoot || start || end
    /// || count), where the stream id is sha256("VES_STREAM_V1" || tenant || store).
    function anchor(
        bytes32 batchId,
        bytes32 tenantId,
        bytes32 storeId,
        bytes32 eventsRoot,
        bytes32 stateRoot,
        uint64 sequenceStart,
        uint64 sequenceEnd,
        uint32 eventCount
    ) external {
        _admit(permissionless);
        _anchor(
            Entry(batchId, tenantId, storeId, eventsRoot, stateRoot, sequenceStart, sequenceEnd, eventCount)
        );
    }

    /// @notice `anchor` for each, in this order; all or none.
    function anchorBatch(
        bytes32[] memory batchIds,
        bytes32[] memory tenantIds,
        bytes32[] memory storeIds,
        bytes32[] memory eventsRoots,
        bytes32[] memory stateRoots,
        uint64[] memory sequenceStarts,
        uint64[] memory sequenceEnds,
        uint32[] memory eventCounts
    ) external {
        _admit(permissionless);
        uint256 count = batchIds.length;
        require(count > 0, "Empty batch");
        require(
            tenantIds.length == count && storeIds.length == count && eventsRoots.length == count
                && stateRoots.length == count && sequenceStarts.length == count && sequenceEnds.length == count
                && eventCounts.length == count,
            "Array length mismatch"
        );
        for (uint256 i = 0; i < count; i++) {
            Entry memory entry;
            entry.batchId = batchIds[i];
            entry.tenantId = tenantIds[i];
            entry.storeId = storeIds[i];
            entry.eventsRoot = eventsRoots[i];
            entry.stateRoot = stateRoots[i];
            entry.sequenceStart = sequenceStarts[i];
            entry.sequenceEnd = sequenceEnds[i];
            entry.eventCount = eventCounts[i];
            _anchor(entry);
        }
        emit BatchAnchored(keccak256(abi.encodePacked(batchIds)), count, block.timestamp);
    }

    function _anchor(Entry memory entry) private {
        bytes16 batch = _uuid(entry.batchId);
        bytes16 tenant = _uuid(entry.tenantId);
        bytes16 store = _uuid(entry.storeId);
        require(_commitments[entry.batchId].anchoredAt == 0, "Already anchored");
        require(entry.sequenceEnd >= entry.sequenceStart, "Invalid sequence range");
        require(entry.eventCount > 0, "Empty batch");
        require(uint256(entry.sequenceEnd) - entry.sequenceStart + 1 == entry.eventCount, "Wrong event count");
        Stream storage stream = _streams[_streamKey(entry.tenantId, entry.storeId)];
        require(entry.sequenceStart == uint256(stream.latestSequence) + 1, "Not contiguous");
        require(entry.stateRoot == _stateRoot(entry, tenant, store, _stateRootOf(stream)), "Wrong state root");

        stream.lastBatch = batch;
        stream.latestSequence = entry.sequenceEnd;
        _batches.push(batch);
        _commitments[entry.batchId] = Commitment({
            tenantId: tenant,
            storeId: store,
            eventsRoot: entry.eventsRoot,
            stateRoot: entry.stateRoot,
            sequenceStart: entry.sequenceStart,
            sequenceEnd: entry.sequenceEnd,
            eventCount: entry.eventCount,
            anchoredBy: msg.sender,
            anchoredAt: uint64(block.timestamp)
        });
        emit CommitmentAnchored(
            entry.batchId,
            entry.tenantId,
            entry.storeId,
            entry.eventsRoot,
            entry.stateRoot,
            entry.sequenceStart,
            entry.sequenceEnd,
            entry.eventCount,
            block.timestamp
        );
    }

    function _stateRoot(Entry memory entry, bytes16 tenant, bytes16 store, bytes32 last)
        private
        pure
        returns (bytes32)
    {
        return sha256(
            abi.encodePacked(
                "VES_STATE_ROOT_V1",
                sha256(abi.encodePacked("VES_STREAM_V1", tenant, store)),
                last,
                entry.eventsRoot,
                entry.sequenceStart,
                entry.sequenceEnd,
                entry.eventCount
            )
        );
    }

    function _uuid(bytes32 word) private pure returns (bytes16) {
        require(uint128(uint256(word)) == 0, "Not a UUID");
        return bytes16(word);
    }

    function _streamKey(bytes32 tenantId, bytes32 storeId) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(tenantId, storeId));
    }

    /// @dev Zero for a stream that has no commitment yet.
    function _stateRootOf(Stream storage stream) private view returns (bytes32) {
        return stream.latestSequence == 0 ? bytes32(0) : _commitments[stream.lastBatch].stateRoot;
    }

    function isAnchored(bytes32 batchId) external view returns (bool) {
        return _commitments[batchId].anchoredAt != 0;
    }

    /// @return False, too, where nothing is anchored.
    function verifyEventsRoot(bytes32 batchId, bytes32 eventsRoot) external view returns (bool) {
        Commitment storage found = _commitments[batchId];
        return found.anchoredAt != 0 && found.eventsRoot == eventsRoot;
    }

    function getCommitment(bytes32 batchId)
        external
        view
        returns (
            bytes32 tenantId,
            bytes32 storeId,
            bytes32 eventsRoot,
            bytes32 stateRoot,
            uint64 sequenceStart,
            uint64 sequenceEnd,
            uint32 eventCount,
            uint256 anchoredAt,
            address anchoredBy
        )
    {
        require(_commitments[batchId].anchoredAt != 0, "Not anchored");
        return commitments(batchId);
    }

    /// @notice As `getCommitment`, but all zero where nothing is anchored.
    function commitments(bytes32 batchId)
        public
        view
        returns (
            bytes32 tenantId,
            bytes32 storeId,
            bytes32 eventsRoot,
            bytes32 stateRoot,
            uint64 sequenceStart,
            uint64 sequenceEnd,
            uint32 eventCount,
            uint256 anchoredAt,
            address anchoredBy
        )
    {
        Commitment storage found = _commitments[batchId];
        tenantId = found.tenantId;
        storeId = found.storeId;
        eventsRoot = found.eventsRoot;
        stateRoot = found.stateRoot;
        sequenceStart = found.sequenceStart;
        sequenceEnd = found.sequenceEnd;
        eventCount = found.eventCount;
        anchoredAt = found.anchoredAt;
        anchoredBy = found.anchoredBy;
    }

    /// @return The last sequence number anchored here; 0 for none.
    function getLatestSequence(bytes32 tenantId, bytes32 storeId) external view returns (uint64) {
        return _streams[_streamKey(tenantId, storeId)].latestSequence;
    }

    /// @param key keccak256(tenantId || storeId)
    function latestSequence(bytes32 key) external view returns (uint64) {
        return _streams[key].latestSequence;
    }

    /// @return What the stream's next state root must be computed from; zero before its first.
    function getLatestStateRoot(bytes32 tenantId, bytes32 storeId) external view returns (bytes32) {
        return _stateRootOf(_streams[_streamKey(tenantId, storeId)]);
    }

    function getAnchoredCount() external view returns (uint256) {
        return _batches.length;
    }

    /// @return The batch id that was anchored as number `index`, from 0.
    function anchoredBatches(uint256 index) external view returns (bytes32) {
        return _batches[index];
    }

    // ------------------------------------------------------------------ many commitments

    /// @notice Stores one root over `count` commitments. Never permissionless.
    /// @param firstIndex Must be `aggregatedCount`: a transaction that was sent twice, or after another sequencer's,
    /// is refused.
    function anchorMany(bytes32 root, uint32 count, uint64 firstIndex) external {
        _admit(false);
        require(count > 0 && count <= AGGREGATE_LEAVES_MAX, "Wrong count");
        require(root != 0, "Zero root");
        require(firstIndex == aggregatedCount, "Wrong first index");
        Aggregate storage aggregate = _aggregates[root];
        require(aggregate.count == 0, "Already anchored");
        bytes32 previous = aggregateHead;
        bytes32 head = sha256(abi.encodePacked("VES_ANCHOR_HEAD_V1", previous, root, firstIndex, count));

        aggregatedCount = firstIndex + count;
        aggregateHead = head;
        aggregate.firstIndex = firstIndex;
        aggregate.count = count;
        aggregate.anchoredBy = msg.sender;
        aggregate.anchoredAt = uint64(block.timestamp);
        aggregate.head = head;
        emit AggregateAnchored(root, firstIndex, count, previous, head, block.timestamp);
    }

    /// @notice All zero for an unknown root. `head` is the head after it.
    function aggregates(bytes32 root)
        external
        view
        returns (uint64 firstIndex, uint32 count, uint256 anchoredAt, address anchoredBy, bytes32 head)
    {
        Aggregate storage found = _aggregates[root];
        return (found.firstIndex, found.count, found.anchoredAt, found.anchoredBy, found.head);
    }

    /// @notice Whether `leaf` stands at `index` of the leaves under `root`.
    /// @param path Siblings from leaf to root: as many as the padded tree is deep, not one more or less.
    function verifyIncluded(bytes32 root, bytes32 leaf, bytes32[] calldata path, uint32 index)
        external
        view
        returns (bool)
    {
        uint32 count = _aggregates[root].count;
        if (index >= count || path.length != _depth(count)) return false;
        bytes32 running = leaf;
        for (uint256 height = 0; height < path.length; height++) {
            bool isRight = (index >> height) & 1 == 1;
            (bytes32 left, bytes32 right) = isRight ? (path[height], running) : (running, path[height]);
            running = sha256(abi.encodePacked("VES_ANCHOR_NODE_V1", left, right));
        }
        return running == root;
    }

    function _depth(uint32 count) private pure returns (uint256 depth) {
        while (uint256(1) << depth < count) depth++;
    }

    // ------------------------------------------------------------------ who may

    function _admit(bool anybody) private view {
        require(!paused, "Paused");
        require(anybody || isSequencer(msg.sender), "Not authorized");
    }

    /// @notice Whether it may anchor: the owner, and whom the owner named.
    function isSequencer(address account) public view returns (bool) {
        return account == owner || _sequencers[account];
    }

    /// @notice The owner itself stays one whatever is set; only a handover ends that.
    function setSequencer(address sequencer, bool allowed) external onlyOwner {
        _sequencers[sequencer] = allowed;
        emit SequencerSet(sequencer, allowed);
    }

    /// @notice Proposes a new owner, in place of whom was proposed before; nothing changes until it accepts. The zero
    /// address, which nobody can accept for, withdraws the proposal.
    function transferOwnership(address newOwner) external onlyOwner {
        pendingOwner = newOwner;
        emit OwnershipTransferProposed(msg.sender, newOwner);
    }

    /// @notice The proposed owner shows that it has its key, and owns this from now on. Named sequencers stay so.
    function acceptOwnership() external {
        require(msg.sender == pendingOwner, "Not proposed");
        emit OwnershipTransferred(owner, msg.sender);
        owner = msg.sender;
        pendingOwner = address(0);
    }

    /// @notice See `permissionless` for what is lost.
    function setPermissionless(bool permissionless_) external onlyOwner {
        permissionless = permissionless_;
        emit PermissionlessSet(permissionless_);
    }

    /// @notice For when a sequencer's key is lost: nothing more is anchored until `unpause`.
    function pause() external onlyOwner {
        paused = true;
        emit PausedSet(true);
    }

    function unpause() external onlyOwner {
        paused = false;
        emit PausedSet(false);
    }
}
