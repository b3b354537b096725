"""The server of a site: this folder, this machine, this name, and nothing else."""

import http.client
import threading

import pytest

from sparc.explorer.serving import server


@pytest.fixture
def listening(tmp_path):
    """A site in a folder beside which lies a secret; its port."""
    folder = tmp_path / "explore"
    (folder / "data").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>page")
    (folder / "data" / "run.js").write_text("sparcData()")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    found = server(folder, port=0)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found.server_address
    found.shutdown()
    thread.join()
    found.server_close()


def ask(address, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*address, timeout=5)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        for one in value if isinstance(value, list) else [value]:
            connection.putheader(name, one)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_the_files_of_the_folder_are_served_with_their_types(listening):
    assert listening[0] == "127.0.0.1"
    answer, body = ask(listening, "/")
    assert (answer.status, body) == (200, b"<!doctype html>page")
    assert answer.getheader("Content-Type") == "text/html; charset=utf-8"
    answer, body = ask(listening, "/data/run.js?x=1", Host=f"localhost:{listening[1]}")
    assert (answer.status, body) == (200, b"sparcData()")
    assert answer.getheader("Content-Type") == "text/javascript; charset=utf-8"
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert ask(listening, "/index.html", "HEAD")[0].status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "//../secret.txt",
        "/link.txt",
        "/data/",
        "/data",
        "/x",
    ],
)
def test_nothing_else_is_served_and_no_folder_is_listed(listening, path):
    answer, body = ask(listening, path)
    if answer.status == 301:  # a folder without its slash
        answer, body = ask(listening, answer.getheader("Location"))
    assert answer.status == 404
    assert b"secret</" not in body
    assert b"run.js" not in body


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1", "127.0.0.1:1", "", ["127.0.0.1:{}", "example.org"], []])
def test_a_request_by_another_name_is_refused(listening, host):
    """A page on the network can give its own name our address; its requests then carry its name."""
    names = [one.format(listening[1]) for one in host] if isinstance(host, list) else host
    for method in ("GET", "HEAD"):
        assert ask(listening, "/data/run.js", method, Host=names)[0].status == 403


def test_nothing_can_be_sent(listening):
    for method in ("POST", "PUT", "DELETE"):
        assert ask(listening, "/index.html", method)[0].status == 501


def test_a_port_that_is_taken_gives_another(listening, tmp_path):
    with server(tmp_path / "explore", port=listening[1]) as other:
        assert other.server_address[1] != listening[1]
