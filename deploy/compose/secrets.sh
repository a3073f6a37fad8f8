#!/bin/sh
# Makes the files that compose.yaml wants, under ./secrets: random passwords and keys, and certificates of an
# authority of this machine's own. What exists is kept. Replace tls.crt and tls.key by your public pair.
# Needs openssl. As root, so that each file belongs to the user in the container that reads it.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
cd secrets

random() { [ -e "$1" ] || { printf '%s' "$3" && openssl rand -hex "$2"; } | tr -d '\n' >"$1"; }
random postgres-superuser-password 24 ""
random database-owner-password 24 ""
random database-app-password 24 ""
random database-anchor-password 24 ""
random database-admin-password 24 ""
random bootstrap-admin-api-key 32 ss_
random signing-key 32 ""
random payload-encryption-keys 32 ""

url() {
    [ -e "$1" ] || printf 'postgresql://%s:%s@postgres:5432/sequencer?sslmode=verify-full&sslrootcert=%s' \
        "$2" "$(cat "$3")" /run/secrets/database_ca >"$1"
}
url database-url sequencer_app_login database-app-password
url database-anchor-url sequencer_anchor_login database-anchor-password
url database-owner-url sequencer_owner database-owner-password

certificate() { # name of the files, name of the host
    [ -e "$1.crt" ] || {
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$1.key" -out "$1.csr"
        printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\n' "$2" >"$1.ext"
        openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile "$1.ext" -out "$1.crt"
        rm -f "$1.csr" "$1.ext"
    } 2>/dev/null
}
[ -e ca.key ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj "/CN=sequencer machine CA" -keyout ca.key -out ca.crt 2>/dev/null
certificate postgres postgres
certificate tls "${SEQUENCER_NAME:-localhost}"
chmod 0644 ca.crt

[ "$(id -u)" -eq 0 ] || { echo "secrets.sh: run it as root, or the containers cannot read the files" >&2; exit 1; }
chown 999:999 postgres.crt postgres.key postgres-superuser-password database-*-password
chown 10001:10001 tls.crt tls.key bootstrap-admin-api-key signing-key payload-encryption-keys database-*url
