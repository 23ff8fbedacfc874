"""Gets a token with Authlib, which sends Basic credentials raw.

stdin: {"tokenEndpoint", "clientId", "clientSecret", "method": "client_secret_basic"|"client_secret_post"};
stdout: the token response.
"""

import json
import os
import sys

# The local edge speaks plain HTTP.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.requests_client import OAuth2Session  # noqa: E402


def main():
    request = json.load(sys.stdin)
    session = OAuth2Session(
        request["clientId"], request["clientSecret"], token_endpoint_auth_method=request["method"]
    )
    token = session.fetch_token(request["tokenEndpoint"], grant_type="client_credentials")
    json.dump(dict(token), sys.stdout)


main()
