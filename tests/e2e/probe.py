"""Fetches a URL again and again, a new connection each time, and prints "ok" or "fail" for each. Ends when killed.

The answer must be what the first good one was.
"""

import http.client
import sys
import time
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
first = None
while True:
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=1)
    try:
        connection.request("GET", url.path)
        body = connection.getresponse().read()
        if first is None:
            first = body
        print("ok" if body == first else "wrong")
    except (OSError, http.client.HTTPException) as error:
        print("fail")
        print(error, file=sys.stderr)
    finally:
        connection.close()
    time.sleep(0.1)
