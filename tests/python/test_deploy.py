"""The container image's steps and the Kubernetes manifests, without a container engine or a cluster."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from private import Servers, free_port, without_ours  # noqa: E402
from python_env import python_env  # noqa: E402


def binary():
    """The newest that cargo built; built now when there is none."""
    built = [ROOT / "target" / profile / "pgsluice" for profile in ("debug", "release")]
    built = sorted((path for path in built if path.exists()), key=lambda path: path.stat().st_mtime)
    if not built:
        subprocess.run(["cargo", "build", "--locked"], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
        return ROOT / "target/debug/pgsluice"
    return built[-1]


class Image(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="pgsluice-root-"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.root.chmod(0o755)
        subprocess.run([ROOT / "tools/image/rootfs.sh", binary(), self.root], check=True, stdin=subprocess.DEVNULL)

    def command(self, *arguments):
        """A command inside the image's file system, as its user."""
        return ["chroot", "--userspec=65532:65532", str(self.root), "/usr/bin/pgsluice", *arguments]

    def need_root(self):
        if os.geteuid() != 0:
            self.skipTest("chroot needs root")

    def test_holds_only_what_it_needs(self):
        names = {path.name for path in self.root.rglob("*") if path.is_file()}
        self.assertIn("pgsluice", names)
        self.assertFalse(names & {"sh", "bash", "busybox"}, "no shell")
        libraries = sum(path.stat().st_size for path in self.root.rglob("*.so*"))
        self.assertLess(libraries, 8 << 20)

    def test_the_binary_runs_in_it(self):
        self.need_root()
        done = subprocess.run(self.command("--version"), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("pgsluice", done.stdout)

    def test_serves_is_healthy_and_ends_on_sigterm(self):
        self.need_root()
        with Servers() as servers:
            postgres = servers.postgres()
            port, http = free_port(), free_port()
            env = {"DATABASE_URL": f"postgres://app:secret@127.0.0.1:{postgres.port}/app",
                   "PGSLUICE_LISTEN": f"*:{port}", "PGSLUICE_HTTP_LISTEN": f"*:{http}", "PGSLUICE_LOG_FORMAT": "json"}
            process = servers.spawn("image", self.command("run"), env=env, port=port)
            # The image's HEALTHCHECK, with the environment that it has there.
            health = subprocess.run(self.command("health"), capture_output=True, text=True, env={**without_ours(), **env},
                                    stdin=subprocess.DEVNULL)
            self.assertEqual(health.returncode, 0, health.stderr + servers.tail("image"))
            answer = subprocess.run([postgres.bin / "psql", "-XAtc", "SELECT 40 + 2", f"postgres://app:secret@127.0.0.1:{port}/app"],
                                    capture_output=True, text=True, stdin=subprocess.DEVNULL)
            self.assertEqual(answer.stdout.strip(), "42", answer.stderr + servers.tail("image"))
            process.terminate()
            self.assertEqual(process.wait(30), 0)

    def test_dockerfile_runs_scripts_only_and_is_not_root(self):
        text = (ROOT / "Dockerfile").read_text()
        for step in re.findall(r"^RUN (.*)$", text, re.M):
            script = re.match(r'\["(tools/image/\w+\.sh)"', step)
            self.assertTrue(script, f"not a script: RUN {step}")
            self.assertTrue(os.access(ROOT / script[1], os.X_OK), script[1])
        self.assertRegex(text, r"(?m)^USER 65532")
        self.assertRegex(text, r"(?m)^STOPSIGNAL SIGTERM$")
        self.assertRegex(text, r'(?m)^HEALTHCHECK .*CMD \["/usr/bin/pgsluice", "health"\]$')

    def test_the_build_context_holds_what_cargo_needs(self):
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        self.assertLessEqual({"Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "src", "tools", "benches"}, kept)
        # A file that the sources include must be in the context too.
        for source in (ROOT / "src").rglob("*.rs"):
            for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
                path = (source.parent / included).resolve().relative_to(ROOT)
                self.assertTrue(any(path == pathlib.Path(k) or pathlib.Path(k) in path.parents for k in kept), f"{source}: {path}")


class Kubernetes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.python = python_env("kubernetes", ["kubernetes-validate==1.37.0"])
        except SystemExit as error:
            raise unittest.SkipTest(f"the schemas could not be fetched from PyPI: {error}")

    def documents(self, name):
        script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
        import json
        done = subprocess.run([self.python, "-c", script, ROOT / "deploy/kubernetes" / name], check=True, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL)
        return json.loads(done.stdout)

    def validate(self, path, version):
        return subprocess.run([self.python.parent / "kubernetes-validate", "--strict", "-k", version, path], capture_output=True,
                              text=True, stdin=subprocess.DEVNULL)

    def test_manifests_fit_the_schemas(self):
        for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml")):
            for version in ("1.29", "1.37"):
                done = self.validate(path, version)
                self.assertEqual(done.returncode, 0, f"{path.name} {version}: {done.stdout}{done.stderr}")

    def test_the_check_can_fail(self):
        wrong = (ROOT / "deploy/kubernetes/sidecar.yaml").read_text().replace("periodSeconds: 1\n", "periodSecond: 1\n")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(wrong)
            file.flush()
            self.assertNotEqual(self.validate(file.name, "1.37").returncode, 0)

    def test_the_sidecar_is_native_probed_and_confined(self):
        deployment = next(doc for doc in self.documents("sidecar.yaml") if doc["kind"] == "Deployment")
        pod = deployment["spec"]["template"]["spec"]
        (sidecar,) = pod["initContainers"]
        self.assertEqual(sidecar["restartPolicy"], "Always")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            self.assertIn(probe, sidecar)
        self.assertTrue(sidecar["securityContext"]["readOnlyRootFilesystem"])
        self.assertGreater(pod["terminationGracePeriodSeconds"], 25)
        secret = next(doc for doc in self.documents("sidecar.yaml") if doc["kind"] == "Secret")
        for container in [sidecar, *pod["containers"]]:
            for variable in container["env"]:
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    self.assertIn(reference["key"], secret["stringData"])


if __name__ == "__main__":
    unittest.main()
