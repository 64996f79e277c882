import json
import sys
from pathlib import Path

(trace,) = json.loads(Path(sys.argv[1]).read_text())["data"]
parents = {span["spanID"]: span["references"][0]["spanID"] for span in trace["spans"] if span["references"]}


def depth(span: str) -> int:
    return 1 + depth(parents[span]) if span in parents else 0


for span in sorted(trace["spans"], key=lambda span: span["startTime"]):
    print("  " * depth(span["spanID"]) + span["operationName"])
