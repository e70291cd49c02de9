"""Every alert fires when it should, and is quiet when it should be."""

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.prometheus_fixtures import promtool

from anyon.monitoring.folders import write
from anyon.monitoring.renderings import Targets, render

JOB = 'job="anyon-containers",instance="a"'
Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """Series (in promtool's notation, one value a minute) in which an alert fires, and in which it does not."""

    alert: str
    fires: Series
    quiet: Series
    minutes: int = 60


def latencies(metric: str, labels: str, *, quick: str, slow: str) -> Series:
    """Return a histogram with the bounds 1, 30 and infinity."""
    comma = "," if labels else ""
    return {
        f'{metric}_bucket{{{labels}{comma}{JOB},le="1"}}': quick,
        f'{metric}_bucket{{{labels}{comma}{JOB},le="30"}}': slow,
        f'{metric}_bucket{{{labels}{comma}{JOB},le="+Inf"}}': slow,
    }


MEMORY, STARTED = "process_resident_memory_bytes", "process_start_time_seconds"
WAKES, LAG = "anyon_wake_seconds", "anyon_event_loop_lag_seconds"
REQUESTS = "anyon_http_request_duration_seconds_count"
REPAIRS = "anyon_reconciler_repairs_total"
CASES = [
    Case("AnyonServerDown", {f"up{{{JOB}}}": "0x60"}, {f"up{{{JOB}}}": "1x57 0 1 1"}),
    Case(
        "AnyonEngineDown",
        {f"anyon_engine_up{{{JOB}}}": "0x60"},
        {f"anyon_engine_up{{{JOB}}}": "1x60"},
    ),
    Case(
        "AnyonCheckpointsFailing",
        {f'anyon_checkpoint_failures_total{{reason="interval",{JOB}}}': "0+1x60"},
        {f'anyon_checkpoint_failures_total{{reason="interval",{JOB}}}': "0x20 1x40"},
    ),
    Case(
        "AnyonCheckpointTooOld",
        {f"anyon_checkpoint_age_seconds{{{JOB}}}": "0+60x60"},
        {f"anyon_checkpoint_age_seconds{{{JOB}}}": "70x60"},
    ),
    Case(
        "AnyonRestoreUnproven",
        {f'anyon_restore_drills_total{{outcome="failed",{JOB}}}': "0x30 1x30"},
        {
            f'anyon_restore_drills_total{{outcome="failed",{JOB}}}': "1x60",
            f'anyon_restore_drills_total{{outcome="proven",{JOB}}}': "0+1x60",
        },
    ),
    Case(
        "AnyonStateNotReplicated",
        {
            f"anyon_state_replicating{{{JOB}}}": "1x60",
            f"anyon_state_replica_timestamp_seconds{{{JOB}}}": "0x60",
        },
        {
            f"anyon_state_replicating{{{JOB}}}": "1x20 0x5 1x40",
            f"anyon_state_replica_timestamp_seconds{{{JOB}}}": "0+60x60",
        },
    ),
    Case(
        "AnyonRestoresFailing",
        {f'anyon_restore_failures_total{{reason="wake",{JOB}}}': "0x55 1x5"},
        {f'anyon_restore_failures_total{{reason="wake",{JOB}}}': "3x60"},
    ),
    Case(
        "AnyonUpkeepFailing",
        {f"anyon_collection_failures_total{{{JOB}}}": "0x30 3x30"},
        {f"anyon_collection_failures_total{{{JOB}}}": "0x30 1x30"},
    ),
    Case(
        "AnyonMountDown",
        {f"anyon_mount_up{{{JOB}}}": "0x60"},
        # no number where no bucket is mounted; and a short absence is mended by itself
        {
            f"anyon_mount_up{{{JOB}}}": "NaN " * 60 + "NaN",
            'anyon_mount_up{instance="b"}': "1x58 0 1",
        },
    ),
    Case(
        "AnyonProjectsUnsaved",
        {f'anyon_projects{{phase="stopped_unsaved",{JOB}}}': "2x60"},
        {
            f'anyon_projects{{phase="stopped_unsaved",{JOB}}}': "0x50 1x5 0x5",
            f'anyon_projects{{phase="stopped",{JOB}}}': "9x60",
        },
    ),
    Case(
        "AnyonDiskLow",
        {f"anyon_home_free_bytes{{{JOB}}}": "9x60", f"anyon_home_size_bytes{{{JOB}}}": "100x60"},
        {f"anyon_home_free_bytes{{{JOB}}}": "11x60", f"anyon_home_size_bytes{{{JOB}}}": "100x60"},
    ),
    Case(
        "AnyonWakeSlow",
        latencies(WAKES, 'tier="stopped"', quick="0x60", slow="0+5x60"),
        # a restore may take its time, and the others are quick
        latencies(WAKES, 'tier="archived"', quick="0x60", slow="0+5x60")
        | latencies(WAKES, 'tier="frozen"', quick="0+5x60", slow="0+5x60"),
    ),
    Case(
        "AnyonContainersFlapping",
        {f'{REPAIRS}{{reason="container_lost",{JOB}}}': "0+1x60"},
        {
            f'{REPAIRS}{{reason="container_lost",{JOB}}}': "0x50 1x10",
            f'{REPAIRS}{{reason="changed_outside",{JOB}}}': "0+1x60",
        },
    ),
    Case(
        "AnyonOutOfMemory",
        {f'anyon_container_oom_kills_total{{project_id="p",{JOB}}}': "0x55 1x5"},
        # long ago; and a container that was started anew counts from 0 again
        {f'anyon_container_oom_kills_total{{project_id="p",{JOB}}}': "0x20 3x35 0x5"},
    ),
    Case(
        "AnyonEventLoopBlocked",
        latencies(LAG, "", quick="0x60", slow="0+60x60"),
        latencies(LAG, "", quick="0+60x60", slow="0+60x60"),
    ),
    Case(
        "AnyonRequestsFailing",
        {
            f'{REQUESTS}{{route="/",status="500",{JOB}}}': "0+6x60",
            f'{REQUESTS}{{route="/",status="200",{JOB}}}': "0+94x60",
        },
        {
            f'{REQUESTS}{{route="/",status="500",{JOB}}}': "0+4x60",
            f'{REQUESTS}{{route="/",status="404",{JOB}}}': "0+96x60",
        },
    ),
    Case(
        "AnyonDiskFilling",
        {
            f"anyon_home_free_bytes{{{JOB}}}": "400-1x240",
            f"anyon_home_size_bytes{{{JOB}}}": "1000x240",
        },
        # it shrinks as fast for a while, then no more; and a disk that is nearly empty has time
        {
            f"anyon_home_free_bytes{{{JOB}}}": "400-1x30 370x210",
            f"anyon_home_size_bytes{{{JOB}}}": "1000x240",
            'anyon_home_free_bytes{instance="b"}': "990-1x240",
            'anyon_home_size_bytes{instance="b"}': "1000x240",
        },
        minutes=240,
    ),
    Case(
        "AnyonMemoryLeakSuspected",
        {f"{MEMORY}{{{JOB}}}": "300000000+1000000x720", f"{STARTED}{{{JOB}}}": "0x720"},
        # a start takes up memory, and a server at work some; neither goes on and on
        {
            f"{MEMORY}{{{JOB}}}": "100000000+20000000x10 300000000x710",
            f"{STARTED}{{{JOB}}}": "0x720",
            f'{MEMORY}{{job="anyon-containers",instance="b"}}': "300000000+1000000x720",
            f'{STARTED}{{job="anyon-containers",instance="b"}}': "36000x720",
        },
        minutes=720,
    ),
    Case(
        "AnyonFileDescriptorLeakSuspected",
        {f"process_open_fds{{{JOB}}}": "50+1x720", f"{STARTED}{{{JOB}}}": "0x720"},
        {f"process_open_fds{{{JOB}}}": "200x700 250x20", f"{STARTED}{{{JOB}}}": "0x720"},
        minutes=720,
    ),
    Case(
        "AnyonStoreFailing",
        {f'anyon_store_errors_total{{operation="put",code="store_unavailable",{JOB}}}': "0+6x60"},
        {
            f'anyon_store_errors_total{{operation="put",code="store_unavailable",{JOB}}}': "0x40 20x20"
        },
    ),
    Case(
        "AnyonDatabaseSlow",
        latencies("anyon_database_wait_seconds", 'kind="write"', quick="0x60", slow="0+60x60"),
        latencies("anyon_database_wait_seconds", 'kind="write"', quick="0+60x60", slow="0+60x60"),
    ),
    Case(
        "AnyonQueueStands",
        {f"anyon_queue_length{{{JOB}}}": "2x60"},
        # a line that empties now and then moves
        {f"anyon_queue_length{{{JOB}}}": "3 3 3 0 " * 15 + "3"},
    ),
    Case(
        "AnyonFileDescriptorsLow",
        {f"process_open_fds{{{JOB}}}": "85x60", f"process_max_fds{{{JOB}}}": "100x60"},
        {f"process_open_fds{{{JOB}}}": "75x60", f"process_max_fds{{{JOB}}}": "100x60"},
    ),
]


def trial(name: str, case: Case, series: Series, *, firing: bool) -> dict[str, object]:
    """Return one test in promtool's form: whether the alert fires after an hour."""
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})',
                "eval_time": f"{case.minutes}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if firing else [],
            }
        ],
    }


def judged(directory: Path, trials: list[dict[str, object]]) -> tuple[int, str]:
    """Let promtool judge *trials* of the rendered rules."""
    write(directory, render(Targets()))
    tests = directory / "prometheus" / "tests.yml"  # JSON is YAML too
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": trials}
    tests.write_text(json.dumps(content))
    return promtool("test", "rules", str(tests))


def test_every_alert_fires_and_keeps_quiet(tmp_path: Path) -> None:
    """In its trouble each alert fires, and just short of it, or in another's trouble, it does not."""
    trials = []
    for case in CASES:
        trials.append(trial(f"{case.alert} fires", case, case.fires, firing=True))
        trials.append(trial(f"{case.alert} is quiet", case, case.quiet, firing=False))
    code, words = judged(tmp_path, trials)
    assert code == 0, words


def test_no_alert_is_left_out() -> None:
    """Each alert of the rules has its case above."""
    rules = render(Targets())[PurePosixPath("prometheus/rules.yml")]
    assert sorted(re.findall(r"alert: (\w+)", rules)) == sorted(case.alert for case in CASES)


def test_a_silent_alert_is_found(tmp_path: Path) -> None:
    """The trial is not blind: an alert that does not fire where it should is told."""
    code, words = judged(tmp_path, [trial("deaf", CASES[0], CASES[0].quiet, firing=True)])
    assert code != 0, words
