"""Verifies an access token with PyJWT and with Authlib, each by its own means.

stdin: {"token", "jwksUri", "issuer"}; stdout: {"pyjwt": claims, "authlib": claims}.
"""

import json
import sys

import jwt
import requests
from authlib.jose import JsonWebKey, JsonWebToken


def with_pyjwt(token, jwks_uri, issuer):
    key = jwt.PyJWKClient(jwks_uri).get_signing_key_from_jwt(token)
    return jwt.decode(token, key, algorithms=["ES256"], issuer=issuer, options={"require": ["exp", "iat", "sub"]})


def with_authlib(token, jwks_uri, issuer):
    keys = JsonWebKey.import_key_set(requests.get(jwks_uri, timeout=10).json())
    claims = JsonWebToken(["ES256"]).decode(
        token, keys, claims_options={"iss": {"essential": True, "value": issuer}, "exp": {"essential": True}}
    )
    claims.validate()
    return dict(claims)


def main():
    request = json.load(sys.stdin)
    arguments = (request["token"], request["jwksUri"], request["issuer"])
    json.dump({"pyjwt": with_pyjwt(*arguments), "authlib": with_authlib(*arguments)}, sys.stdout)


main()
