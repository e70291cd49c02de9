#!/usr/bin/env bash
# The plan's load test as its operator types it: 10 projects, 5 tasks in each, then the metrics and
# the containers. Needs curl and jq; `anyon load-test` is the same with latencies and a report.
#
# usage: plan_load_test.sh [HOST[:PORT]]
set -euo pipefail
HOST=${1:-localhost:8080}
TOKEN=${ANYON_TOKEN:-}
call() { curl -sS --fail-with-body ${TOKEN:+-H "Authorization: Bearer $TOKEN"} "$@"; }

for i in $(seq 1 10); do
  PROJECT_ID=$(call -X POST "http://$HOST/api/projects" -H "Content-Type: application/json" \
    -d "{\"name\": \"load-test-$i\", \"git_repo_path\": \"\"}" | jq -r '.data.id')
  for j in $(seq 1 5); do
    call -X POST "http://$HOST/api/tasks" \
      -d "{\"project_id\": \"$PROJECT_ID\", \"description\": \"echo task $j\"}" >/dev/null &
  done
done
wait

call "http://$HOST/metrics"
if command -v docker >/dev/null; then docker ps | grep project- | wc -l; fi
