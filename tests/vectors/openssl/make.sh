#!/bin/sh
# Makes the certificates of this folder, the way people make them with openssl (3.0): a root, an intermediate with
# basicConstraints and nothing else, a device's certificate without any extension file, which is X.509 version 1.
# The keys are thrown away. Usage: ./make.sh
set -eu
cd "$(dirname "$0")"
keys=$(mktemp -d)
trap 'rm -rf "$keys"' EXIT

key() { # file, kind
    case $2 in
        rsa*) openssl genrsa -out "$keys/$1" "${2#rsa}" 2>/dev/null ;;
        *) openssl ecparam -genkey -noout -name "$2" -out "$keys/$1" ;;
    esac
}

root() { # name, kind, hash
    key "$1-root.key" "$2"
    openssl req -x509 -new -key "$keys/$1-root.key" "-$3" -days 36500 -subj "/C=US/O=Retail Corp/CN=$1 root" \
        -addext subjectKeyIdentifier=hash -addext authorityKeyIdentifier=keyid:always \
        -addext basicConstraints=critical,CA:true -out "$1-root.pem"
}

issue() { # issuer, subject, kind, hash, distinguished name, then options of openssl x509
    issuer=$1 subject=$2 digest=$4
    key "$subject.key" "$3"
    openssl req -new -key "$keys/$subject.key" -subj "$5" -out "$keys/$subject.csr"
    shift 5
    openssl x509 -req -in "$keys/$subject.csr" -CA "$issuer.pem" -CAkey "$keys/$issuer.key" -CAcreateserial \
        -CAserial "$keys/serial" -days 36500 "-$digest" "$@" -out "$subject.pem" 2>/dev/null
}

chain() { # name, kind of the CAs' keys, kind of the device's key, hash, then options of openssl x509
    name=$1 cas=$2 device=$3 hash=$4
    shift 4
    root "$name" "$cas" "$hash"
    printf 'basicConstraints=CA:TRUE,pathlen:0\n' > "$keys/intermediate.ext"
    issue "$name-root" "$name-intermediate" "$cas" "$hash" "/C=US/O=Retail Corp/CN=$name intermediate" \
        -extfile "$keys/intermediate.ext" "$@"
    issue "$name-intermediate" "$name-device" "$device" "$hash" \
        "/C=US/ST=State/L=City/O=05243/CN=pos-terminal-001" "$@"
}

chain rsa rsa4096 rsa2048 sha256
chain p256 prime256v1 prime256v1 sha256
chain p384 secp384r1 secp384r1 sha384
chain mixed rsa3072 secp384r1 sha512
chain pss rsa2048 rsa2048 sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
chain pss-max rsa2048 prime256v1 sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max

# What is too weak.
chain sha1 rsa2048 rsa2048 sha1
chain rsa1024 rsa1024 rsa2048 sha256
chain p521 secp521r1 prime256v1 sha256
