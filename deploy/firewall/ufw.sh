#!/bin/sh
# The firewall of a machine that runs the sequencer, by ufw: clients on 443, your administrators on 22, PostgreSQL
# from nowhere, the admin listener from monitoring only. As root:
#
#   ADMINS=198.51.100.0/24 MONITORING=198.51.100.9 sh deploy/firewall/ufw.sh
#
# sequencer.nft says the same without ufw. Never load both.
set -eu
: "${ADMINS:?the network that may reach port 22; without it you would lock yourself out}"
UFW="${UFW:-ufw}"

$UFW default deny incoming
$UFW default allow outgoing                                  # PostgreSQL elsewhere, the chain's RPC endpoints (443)
$UFW allow 443/tcp                                          # clients: nginx, or the sequencer itself
$UFW allow from "$ADMINS" to any port 22 proto tcp          # your administrators
$UFW deny 5432/tcp                                          # PostgreSQL; nodes elsewhere: allow each, before this
if [ -n "${MONITORING:-}" ]; then
    $UFW allow from "$MONITORING" to any port 8082 proto tcp    # /metrics: ADMIN_BIND and ADMIN_IP_ALLOWLIST too
fi
$UFW --force enable
