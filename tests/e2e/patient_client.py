"""Connections that ask one after the other, and wait as long as it takes: patient_client.py HOST PORT SECONDS CONNECTIONS
Says "begun" when a hundred answers have come, and goes on for SECONDS from then."""

import http.client
import json
import sys
import threading
import time

PATIENCE = 20  # seconds for one answer


def ask(host, port, result):
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        while time.monotonic() < result["until"]:
            connection.request("GET", "/k8")
            body = connection.getresponse().read()
            result["answers"] += 1
            if len(body) != 8192:
                result["failures"].append(f"{len(body)} bytes")
            time.sleep(0.002)
    except (OSError, http.client.HTTPException) as error:
        result["failures"].append(repr(error))


def main(host, port, seconds, connections):
    result = {"answers": 0, "failures": [], "until": float("inf")}
    threads = [threading.Thread(target=ask, args=(host, int(port), result)) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    while result["answers"] < 100 and any(thread.is_alive() for thread in threads):
        time.sleep(0.01)
    result["until"] = time.monotonic() + float(seconds)
    print("begun", flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps(result), flush=True)


main(*sys.argv[1:])
