"""Fetches a URL again and again, a new connection each time, and prints "ok" or "fail" for each. Ends when killed.

The answer must be what the first good one was. With --show it may be any, is printed instead of "ok", and
may take longer.
"""

import http.client
import sys
import time
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
show = "--show" in sys.argv[2:]
first = None
while True:
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=5 if show else 1)
    try:
        connection.request("GET", url.path)
        body = connection.getresponse().read()
        if first is None:
            first = body
        print(body.decode() if show else "ok" if body == first else "wrong")
    except (OSError, http.client.HTTPException) as error:
        print("fail")
        print(error, file=sys.stderr)
    finally:
        connection.close()
    time.sleep(0.1)
