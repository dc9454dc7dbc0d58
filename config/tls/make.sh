#!/bin/sh
# Makes the certificates, keys and revocation list of the examples anew, valid until 2120, and what is wrong with those
# of ../broken/tls on purpose. They are public: for trying things out, and for nothing else.
set -eu
cd "$(dirname "$0")"
broken=../broken/tls
mkdir -p "$broken"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

: > "$work/index"
cat > "$work/conf" << CONF
[ca]
default_ca = example
[example]
database = $work/index
new_certs_dir = $work
rand_serial = yes
default_md = sha256
crlnumber = $work/number
policy = any
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:true
subjectKeyIdentifier = hash
keyUsage = critical, keyCertSign, cRLSign
CONF
echo 01 > "$work/number"

key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }

# certificate NAME SUBJECT SECTION OPTION..: for the key of that name.
certificate() {
    name=$1 subject=$2 section=$3
    shift 3
    openssl req -new -key "$name.key" -subj "/CN=$subject" -out "$work/request"
    openssl ca -batch -config "$work/conf" -in "$work/request" -startdate 20200101000000Z -enddate 21200101000000Z \
        -notext -extensions "$section" "$@" -out "$name.pem"
}

# leaf NAME SUBJECT EXTENSION..: a key, and a certificate for it from the CA.
leaf() {
    name=$1 subject=$2
    shift 2
    {
        printf '[%s]\nbasicConstraints = critical, CA:false\nauthorityKeyIdentifier = keyid\n' "${name##*/}"
        printf '%s\n' "$@"
    } >> "$work/conf"
    key "$name"
    certificate "$name" "$subject" "${name##*/}" -cert ca.pem -keyfile ca.key
}

key ca
certificate ca "Postern example CA" root -selfsign -keyfile ca.key
leaf site example.com "subjectAltName = DNS:example.com, DNS:www.example.com" "extendedKeyUsage = serverAuth"
leaf wildcard "*.example.com" "subjectAltName = DNS:*.example.com" "extendedKeyUsage = serverAuth"
leaf gateway gateway.example.com "subjectAltName = DNS:gateway.example.com" "extendedKeyUsage = clientAuth"
openssl ca -config "$work/conf" -gencrl -cert ca.pem -keyfile ca.key \
    -crl_lastupdate 20200101000000Z -crl_nextupdate 21200101000000Z -out ca.crl

leaf "$broken/no-name" no-name.example.com
openssl pkey -in site.key -aes256 -passout pass:secret -out "$broken/encrypted.key"
cat site.key wildcard.key > "$broken/several.key"
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out "$broken/short.key"
head -n 4 site.pem > "$broken/damaged.pem"
printf -- '-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n' > "$broken/no-x509.pem"
printf -- '-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n' > "$broken/no-x509.crl"

echo "The pin of upstream-tls.json, which is that of site.pem:"
openssl x509 -in site.pem -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64
