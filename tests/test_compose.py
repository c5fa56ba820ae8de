"""`compose.yaml` and `deploy/k8s/api.yaml`: nothing is missing, open or in clear text."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from cyclopts import CycloptsError

from deploy.written import ROOT, composed, last, stages, variables
from flows.cli import app

COMPOSE = composed("churn")
SERVICES = COMPOSE["services"]
OURS = {name for name, one in SERVICES.items() if one["image"].startswith("holdfast")}
MADE = ROOT / "deploy" / "make-secrets"
K8S = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy/k8s/api.yaml").read_text())}
POD = K8S["Deployment"]["spec"]["template"]
(API,) = POD["spec"]["containers"]
SECRET = re.compile(r"password|token|secret|alerts|database|uri|://", re.IGNORECASE)


def commands(program):
    found = [(name, one.get("command", ())) for name, one in SERVICES.items()]
    return [pytest.param(words[1:], id=name) for name, words in found if words[:1] == [program]]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_write_nothing_but_its_volumes_and_has_no_privileges(name):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & service.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_the_loopback_only(name):
    ports = SERVICES[name].get("ports", [])

    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists_or_is_made_and_files_cannot_be_written(name):
    for volume in SERVICES[name].get("volumes", ()):
        source, _, mode = (*volume.split(":"), "rw")[:3]
        if not source.startswith("./"):
            assert source in COMPOSE["volumes"]
            continue
        assert mode == "ro"
        ignored = f"/{source.removeprefix('./')}/" in (ROOT / ".gitignore").read_text().splitlines()
        assert (ROOT / source).exists() or ignored


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_others_until_they_are_healthy(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]


def test_only_what_ends_and_what_has_nothing_to_answer_has_no_health_check():
    assert {name for name, one in SERVICES.items() if "healthcheck" not in one} == {
        *("deploy", "deploy-staging"),
        *("watch", "watch-staging"),
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_secret_is_a_file_that_the_service_is_given(name):
    service = SERVICES[name]
    files = {f"/run/secrets/{one}" for one in service.get("secrets", ())}
    for variable, value in service.get("environment", {}).items():
        if variable.endswith("_FILE") or value.startswith("/run/secrets"):
            assert value in files
        elif SECRET.search(variable) or SECRET.search(value):
            known = r"http://(prefect|mlflow|localhost|127\.0\.0\.1):\d+(/api)?"
            assert all(re.fullmatch(known, one) for one in value.split(","))
    assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()


def test_every_secret_is_made_at_random_and_kept_when_the_program_is_repeated(tmp_path):
    program = tmp_path / "deploy" / "make-secrets"
    program.parent.mkdir()
    program.write_bytes(MADE.read_bytes())

    def made():
        subprocess.run(["bash", program], check=True)  # noqa: S607 -- on the PATH
        return {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    first = made()
    assert made() == first
    assert {f"secrets/{name}" for name in first} == {
        one["file"] for one in COMPOSE["secrets"].values()
    }
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    accounts = configparser.ConfigParser()
    accounts.read_string(first.pop("mlflow-accounts"))
    assert accounts["mlflow"]["database_uri"] == first["mlflow-database"]
    yours = {"alerts", "s3-account"}
    random = re.findall(r"[0-9a-f]{48}", "\n".join(first.values()))
    assert len(set(random)) == len(random) == len(first.keys() - yours)


def test_secrets_are_neither_in_git_nor_in_an_image():
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
    assert not any("secrets" in rest.split() for one in stages().values() for _, rest in one)


@pytest.mark.parametrize("words", commands("holdfast"))
def test_a_command_of_ours_is_one_that_the_program_takes(words):
    try:
        app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        pytest.fail(str(error))


@pytest.mark.parametrize("name", sorted(OURS))
def test_an_image_of_ours_is_built_from_a_stage_of_the_dockerfile(name):
    image = SERVICES[name]["image"]
    (build,) = [
        one["build"] for one in SERVICES.values() if one["image"] == image and "build" in one
    ]

    assert build == {"context": ".", "target": image.removeprefix("holdfast-")}
    assert build["target"] in stages()


def test_prefect_is_asked_by_those_alone_who_have_its_account():
    account = SERVICES["prefect"]["environment"]["PREFECT_SERVER_API_AUTH_STRING__FILE"]
    clients = [one for one in SERVICES.values() if "PREFECT_API_URL" in one.get("environment", {})]

    assert len(clients) == 7
    assert {one["environment"]["PREFECT_API_AUTH_STRING__FILE"] for one in clients} == {account}


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - OURS))
def test_an_image_of_others_is_pinned_by_its_tag(name):
    assert re.fullmatch(r"[a-z/]+:v?\d[\w.-]+", SERVICES[name]["image"])


def test_prometheus_scrapes_the_api_and_has_its_token():
    jobs = yaml.safe_load((ROOT / "deploy/prometheus.yaml").read_text())["scrape_configs"]
    (target,) = jobs[0]["static_configs"][0]["targets"]
    (found,) = jobs[1]["dns_sd_configs"]
    places = [tuple(target.split(":")), (found["names"][0], str(found["port"]))]

    assert [name for name, _ in places] == ["api", "api-staging"]
    for job, (name, port) in zip(jobs, places, strict=True):
        assert SERVICES[name]["environment"]["HOLDFAST__SERVING__PORT"] == port
        token = Path(job["authorization"]["credentials_file"]).name
        assert token in SERVICES["prometheus"]["secrets"]
        assert token in SERVICES[name]["secrets"]


@pytest.mark.parametrize("name", ["api", "deploy", "watch"])
def test_staging_is_production_under_its_own_names_where_it_is_asked_for(name):
    production, staging = SERVICES[name], SERVICES[f"{name}-staging"]
    own = {"HOLDFAST__ENVIRONMENT": "staging"}
    own |= {"HOLDFAST__SERVING__PORT": "8001"} if name == "api" else {}

    assert staging["profiles"] == ["staging"]
    assert staging["environment"] == production["environment"] | own
    differ = {key for key in staging if staging[key] != production.get(key)}
    assert differ - {"profiles", "environment"} == ({"ports", "healthcheck"} & production.keys())


def test_grafana_asks_that_prometheus_and_finds_the_dashboard():
    folder = ROOT / "deploy" / "grafana"
    (source,) = yaml.safe_load((folder / "datasources.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards.yaml").read_text())["providers"]
    targets = dict(one.split(":")[:2] for one in SERVICES["grafana"]["volumes"])

    assert source["url"] == "http://prometheus:9090"
    assert Path(targets["./deploy/grafana.json"]).parent == Path(provider["options"]["path"])


def test_mlflow_runs_the_command_of_its_image_and_keeps_the_artifacts_of_its_clients():
    service, stage = SERVICES["mlflow"], stages()["mlflow"]
    place = "MLFLOW_ARTIFACTS_DESTINATION"

    assert "command" not in service
    assert "--no-serve-artifacts" not in last(stage, "CMD")
    assert service["environment"][place] == variables(stage)[place] == "/state/artifacts"
    assert service["volumes"] == ["artifacts:/state"]


def test_mlflow_is_asked_by_the_account_that_it_makes():
    service = SERVICES["mlflow"]["environment"]
    clients = [one for one in SERVICES.values() if "PREFECT_API_URL" in one.get("environment", {})]

    assert "--app-name basic-auth" in " ".join(yaml.safe_load(last(stages()["mlflow"], "CMD")))
    for client in clients:
        own = client["environment"]
        password = own["MLFLOW_TRACKING_PASSWORD__FILE"]
        assert password == service["MLFLOW_AUTH_ADMIN_PASSWORD__FILE"]
        assert f"admin_username = {own['MLFLOW_TRACKING_USERNAME']}\n" in MADE.read_text()


def test_the_pod_of_the_api_has_no_privileges_and_writes_in_its_volumes_only():
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert str(POD["spec"]["securityContext"]["runAsUser"]) == last(stages()["serve"], "USER")
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert API["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {one["name"]: one["mountPath"] for one in API["volumeMounts"]}
    assert mounted.keys() == {one["name"] for one in POD["spec"]["volumes"]}
    assert {"/state", "/tmp"} < set(mounted.values())  # noqa: S108 -- of the container


def test_the_pod_is_asked_for_what_the_server_answers_and_found_by_its_service():
    (port,) = API["ports"]
    probes = {
        name: API[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert str(port["containerPort"]) == variables(stages()["serve"])["HOLDFAST__SERVING__PORT"]
    assert {one["port"] for one in probes.values()} == {port["name"]}
    assert [one["path"] for one in probes.values()] == ["/live", "/live", "/ready"]
    labels = POD["metadata"]["labels"]
    assert K8S["Service"]["spec"]["selector"] == labels
    assert K8S["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert K8S["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]


def test_the_token_is_a_secret_in_a_file_and_the_captures_outlive_the_pod():
    (variable,) = API["env"]
    volumes = {one["name"]: one for one in POD["spec"]["volumes"]}
    folder = {one["mountPath"]: one["name"] for one in API["volumeMounts"]}
    path = Path(variable["value"])

    assert variable["name"] == "HOLDFAST__SERVING__TOKEN__FILE"
    items = volumes[folder[str(path.parent)]]["secret"]["items"]
    assert [one["path"] for one in items] == [path.name]
    claim = volumes[folder["/state"]]["persistentVolumeClaim"]["claimName"]
    assert claim == K8S["PersistentVolumeClaim"]["metadata"]["name"]
