"""What `/metrics` tells of a server, by its settings."""

from dataclasses import replace

import pytest
from tests.api.conftest import running

from anyon.config import Settings
from anyon.sdk.requests import CreateProject, Exec
from anyon.testing.worlds import until


@pytest.mark.parametrize("per_project", [True, False])
async def test_a_switch_keeps_projects_out_of_the_metrics(
    settings: Settings, *, per_project: bool
) -> None:
    """`metrics_per_project = false`: run times share a label, use is not told; with it on (the control) both are."""
    settings = replace(settings, metrics_per_project=per_project)
    async with running(settings) as server, server.http as http:
        project = await server.client.projects.create(CreateProject(name="p"))
        process = await server.client.projects.exec(project.id, Exec(argv=["true"]))
        await server.client.processes.wait(process.id)
        ran = "anyon_container_exec_duration_seconds_count"
        wanted = [f'{ran}{{project_id="{project.id if per_project else "all"}"']
        if per_project:
            wanted += [
                f'{name}{{project_id="{project.id}"'
                for name in ("anyon_container_pids", "anyon_container_memory_bytes")
            ]

        async def is_told() -> bool:
            told = (await http.get("/metrics")).text
            return all(series in told for series in wanted)

        await until(is_told)
        told = (await http.get("/metrics")).text
        assert (str(project.id) in told) is per_project
