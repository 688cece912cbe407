"""Secrets do not get past redaction, programs keep their names, and no text takes it long."""

import random
import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phalanx.service.records import LiveEvent
from phalanx.service.redaction import MASK, RULES, redact, redact_command, redact_event, safe_text
from phalanx.service.secret_names import PROGRAM_FLAGS, is_secret_name

# Forms in which secrets appear; {} is the secret. What surrounds them was seen in manuals, histories and incidents.
FORMS = [
    "mysql -uroot -p{} shop",
    "mysql -u root -p {}",
    "/usr/bin/mysqldump --host db -p{} --all-databases > /tmp/x",
    "mysql --user=root --password={} -e 'select 1'",
    "mysql --password {} shop",
    "sh -c \"mysql -uroot -p'{}' shop\"",
    "sudo -u app mysql -p{}; echo done",
    "sshpass -p {} ssh root@10.0.0.1",
    "sshpass -p'{}' scp a b:",
    'sshpass -p "{}" scp a b:',
    "PGPASSWORD={} psql -h db",
    "export DB_PASSWORD={}",
    "env AWS_SECRET_ACCESS_KEY={} aws s3 ls",
    'export SECRET_KEY="{}" && ./run',
    "docker run -e 'API_TOKEN={}' -p 80:80 app",
    "docker login -u bob -p {} registry.example.net",
    "docker login -p{} -u bob",
    "curl -u bob:{} https://example.net/",
    "curl --user bob:{} https://example.net/",
    "curl -U bob:{} --proxy-user=eve:{} https://example.net/",
    "curl -H 'Authorization: Bearer {}' https://example.net/",
    'curl -H "Authorization: Basic {}" https://example.net/',
    "curl -H 'X-Api-Key: {}' https://example.net/",
    "curl -H 'Cookie: session={}; theme=dark' https://example.net/",
    "curl 'https://example.net/a?page=1&access_token={}&x=y'",
    "curl https://bob:{}@example.net/path",
    "git clone https://oauth2:{}@git.example.net/a/b.git",
    "psql postgresql://app:{}@db.example.net:5432/app?sslmode=require",
    "redis-cli -h cache -a {} ping",
    "redis-cli -u redis://:{}@cache:6379/0",
    "mongosh -u admin -p {} --authenticationDatabase admin",
    'sqlcmd -S srv -U sa -P {} -Q "select 1"',
    "sqlcmd -S srv -U sa -P{}",
    'dotnet app "Server=db;User Id=sa;Password={};Encrypt=True"',
    "Server=tcp:db;Pwd={};Database=x",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=core.windows.net",
    "Endpoint=sb://a/;SharedAccessKeyName=b;SharedAccessKey={}",
    "ldapsearch -x -D cn=admin -w {} -b dc=x",
    "plink -ssh root@h -pw {} uptime",
    "xfreerdp /v:host /u:bob /p:{}",
    "smbclient -U bob%{} //srv/share",
    "net use x: /user:bob /password:{}",
    "cmdkey /add:srv /user:bob /pass:{}",
    "openssl enc -aes-256-cbc -k {} -in a",
    "openssl rsa -passin pass:{} -in k.pem",
    "openssl pkcs12 -passout pass:{} -export",
    "gpg --batch --passphrase {} -d a.gpg",
    "zip -P {} a.zip b",
    "7z x -p{} a.7z",
    "rar a -hp{} a.rar b",
    "useradd -p {} bob",
    "htpasswd -b /etc/htpasswd bob {}",
    "echo 'root:{}' | chpasswd",
    "echo {} | sudo -S ls",
    "echo {} | passwd --stdin bob",
    "printf {} | docker login --password-stdin -u bob",
    "sqlplus scott/{}@db",
    "ipmitool -H bmc -U admin -P {} power off",
    "mosquitto_pub -h b -u u -P {} -t t -m m",
    "wget --http-password={} http://example.net/",
    "wget --header='authorization: token {}' http://example.net/",
    "aws configure set aws_secret_access_key {}",
    "npm config set //registry.example.net/:_authToken={}",
    "kubectl create secret generic x --from-literal=password={}",
    "helm install x --set auth.rootPassword={} chart",
    "vault write auth/approle/login secret_id={}",
    "terraform apply -var 'db_password={}'",
    'ansible-playbook x.yml --extra-vars \'{{"ansible_become_password": "{}"}}\'',
    'curl -d \'{{"user":"bob","password":"{}"}}\' https://example.net/',
    'curl -d "{{\\"token\\": \\"{}\\"}}" https://example.net/',
    "python -c \"connect(user='a', password='{}')\"",
    "powershell -c \"$env:APP_SECRET='{}'; ./run\"",
    "powershell ConvertTo-SecureString '{}' -AsPlainText -Force",
    "powershell -Command Set-X -Credential bob -Password {}",
    "rasdial vpn bob --secret {}",
    "<config><password>{}</password></config>",
    "password: {}",
    "secret => {}",
    "DB_PASS={}\nDB_USER=x",
    "/opt/app --client-secret={} --port 80",
    "/opt/app -token {}",
    "nxc smb 10.0.0.0/24 -u bob -p {}",
    "evil-winrm -i h -u bob -p {}",
    "java -Dspring.datasource.password={} -jar a.jar",
    "java -Djavax.net.ssl.keyStorePassword={} -jar a.jar",
]

# Tokens that are known by their shape wherever they stand.
SHAPED = {
    "aws key id": "AKIA" + "IOSFODNN7EXAMPLE",
    "aws session": "ASIA" + "Y34FZKBOKMUTVV7A",
    "github": "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "github fine": "github_pat_" + "11ABCDEFG0123456789_abcdefghijklmnop",
    "gitlab": "glpat-" + "x1y2z3a4b5c6d7e8f9g0",
    "slack": "xoxb-" + "123456789012-abcdefABCDEF",
    "google": "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "google oauth": "ya29." + "a0AfH6SMBx1234567890",
    "stripe": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "openai": "sk-" + "proj-abcdefghij1234567890",
    "npm": "npm_" + "abcdefghijklmnopqrstuvwxyz0123456789",
    "pypi": "pypi-" + "AgEIcHlwaS5vcmcCJDAwMDAwMDAwLTAwMDAtMDAwMC0w",
    "sendgrid": "SG." + "abcdefghijklmnopqrstuv" + "." + "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
    "digitalocean": "dop_v1_" + "0123456789abcdef" * 4,
    "vault": "hvs." + "CAESIJ1234567890abcdefgh",
    "jwt": "eyJhbGciOiJIUzI1NiJ9"
    + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0"
    + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "age": "AGE-SECRET-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" + "QPZRY9X8GF2TVDW0S3JN54KHCE",
    "telegram": "123456789:" + "AAabcdefghijklmnopqrstuvwxyz0123456",
    "slack hook": "hooks.slack.com/services/" + "T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
}
KEY = "-----BEGIN {}PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nBAQEFAASCBKcwggSjAgEAAoIB\n-----END {}PRIVATE KEY-----"

SECRETS = [
    "hunter2",
    "Tr0ub4dor&3",
    "p@ss:w0rd",
    "x9$K!q^Z%7",
    "aGVsbG8gd29ybGQ=",
    "correct-horse_battery.staple",
    "s/l/a",
]


def fits(form: str, secret: str) -> bool:
    """Whether a shell or a URL would take the secret as it stands in this form."""
    in_url = re.search(r"://\S*:\{\}@|/\{\}@", form)
    in_query = re.search(r"[?&]\w+=\{\}", form)
    if in_url and re.search(r"[/?#@%]", secret):
        return False
    if in_query and re.search(r"[&#]", secret):
        return False
    return not ("Basic" in form and not re.fullmatch(r"[A-Za-z0-9+/]{8,}=*", secret))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", SECRETS)
def test_no_planted_secret_survives(form: str, secret: str) -> None:
    if not fits(form, secret):
        return
    text = form.format(*[secret] * form.count("{}"))
    for find in (redact, redact_command):
        found = find(text)
        assert secret not in found and MASK in found, found
        assert find(found) == found
        for part in re.split(r"\W", secret):
            assert len(part) < 4 or part not in found, found


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize(
    "form", ["{}", "run {} now", "x={}", "https://git.example.net/?a={}&b=1", '["{}"]', "/tmp/{}"]
)
def test_tokens_are_known_by_their_shape(name: str, form: str) -> None:
    found = redact(form.format(SHAPED[name]))
    assert SHAPED[name][-12:] not in found and MASK in found
    assert redact(found) == found


@pytest.mark.parametrize("kind", ["", "RSA ", "OPENSSH ", "EC ", "ENCRYPTED "])
def test_private_keys_go_with_their_bodies(kind: str) -> None:
    key = KEY.format(kind, kind)
    assert redact(f"echo '{key}' > k") == f"echo '{MASK}' > k"
    assert redact(key[:60] + " cut") == MASK  # one that never ends
    assert redact(f"a {key} b {key} c") == f"a {MASK} b {MASK} c"
    assert redact("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----").startswith(
        "-----BEGIN PUBLIC"
    )


@pytest.mark.parametrize(
    "text",
    [
        "ls -la /home/bob",
        "ssh -p 2222 bob@example.net",
        "docker run -p 80:80 --user 1000:1000 nginx",
        "mkdir -p /srv/data",
        "python train.py --max-tokens 512 --tokenizer bert --key-file /etc/k.pem",
        "app --password-file /run/secrets/x --token-ttl 3600",
        "curl https://example.net:8443/a@b?page=2",
        "git clone git@example.net:a/b.git",
        "mysql --protocol=tcp --host db",
        "openssl s_client -key k.pem -connect example.net:443",
        "grep -r monkey= /srv",
        "sort -k 2 a.txt",
        "C:\\Windows\\System32\\svchost.exe -k netsvcs -p",
        "echo hello | sudo tee /etc/x",
        "rsync -a a b",
        "2026-01-31T10:20:30Z INFO compass: 3",
        "",
        " ",
        "\x00",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text and redact_command(text) == text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/opt/AKIAIOSFODNN7EXAMPLE -v", "/opt/AKIAIOSFODNN7EXAMPLE -v"),
        (
            "A=1 TOKEN=x ghp_a1B2c3D4e5F6g7H8i9J0 --token y",
            "A=1 TOKEN=*** ghp_a1B2c3D4e5F6g7H8i9J0 --token ***",
        ),
        ("TOKEN='a b' run", "TOKEN='***' run"),
        ("'/opt/my token' x", "'/opt/my token' x"),
        ('"C:\\a\\mysql.exe" -psecret', '"C:\\a\\mysql.exe" -p***'),
        ("https://a:b@c/prog x", "https://a:***@c/prog x"),
        ("password=x", "password=***"),
        ("password: x", "password: ***"),
    ],
)
def test_the_program_keeps_its_base_name(line: str, expected: str) -> None:
    assert redact_command(line) == expected
    assert redact_command(expected) == expected


names = st.sampled_from(
    ["ghp_" + "a" * 30, "AKIA" + "A" * 16, "eyJaaaaaaaaaa.bbbb.cc", "token", "ls", "my-secret", "p"]
)
rests = st.text(alphabet="ab =:'\"-/@\\;&|<>*\n.", max_size=30)


@given(st.sampled_from(["", "/", "/opt/", "../", "C:\\"]), names, rests)
def test_no_program_is_hidden_by_its_own_name(folder: str, name: str, rest: str) -> None:
    line = f"{folder}{name} {rest}"
    assert redact_command(line).split(" ")[0].endswith(name)


ATOMS = [
    *(
        "password",
        "PASSWORD",
        "token",
        "key",
        "API_KEY",
        "secret",
        "pass",
        "user",
        "-p",
        "-u",
        "--password",
        "--user",
    ),
    *(
        "mysql",
        "curl",
        "docker",
        "login",
        "echo",
        "|",
        "chpasswd",
        "sudo -S",
        "sqlplus",
        "htpasswd",
        "a/b@",
        "openssl -k",
    ),
    *(
        "=",
        ":",
        "=>",
        " ",
        "  ",
        "\t",
        "\n",
        ";",
        "&",
        "?",
        "'",
        '"',
        "\\",
        '\\"',
        "$",
        "*",
        "***",
        "<",
        ">",
        "(",
        "{",
        "[",
    ),
    *(
        "://",
        "https://",
        "a:b@",
        "@",
        "/",
        "#",
        "%",
        "Bearer ",
        "Basic ",
        "Authorization:",
        "Cookie: ",
        "eyJ",
        "eyJaaaaaaaa.",
    ),
    *(
        "ghp_",
        "AKIA",
        "sk-",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "-----BEGIN ",
        "SG.",
        "xoxb-",
    ),
    *(
        "a",
        "A",
        "0",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "0123456789",
        "é",
        "\x00",
        "\u202e",
        "\ud800",
        "ConvertTo-SecureString ",
    ),
]
pieces = st.lists(st.sampled_from(ATOMS), max_size=12).map("".join)


@given(pieces | st.text())
@example("password ==***;a=b")
@example("'password='\"")
def test_redacting_twice_is_redacting_once(text: str) -> None:
    for find in (redact, redact_command):
        once = find(text)
        assert find(once) == once


def fuzz(count: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(count):
        text = "".join(chance.choices(ATOMS, k=chance.randint(1, 12)))
        once = redact_command(text)
        assert redact_command(once) == once, text
        if chance.random() < 0.2:
            secret = "".join(chance.choices(string.ascii_letters, k=12))
            planted = chance.choice(
                ["PASSWORD={}", "--token {} ", "--password='{}'", "https://a:{}@h"]
            ).format(secret)
            assert secret not in redact(f"{planted} {text}"), text
            assert secret not in redact(f"{text.replace(chr(39), '').replace(chr(34), '')} {planted}"), text


def test_thousands_of_odd_texts() -> None:
    fuzz(2_000, seed=1)


@pytest.mark.slow
def test_a_hundred_thousand_odd_texts() -> None:
    fuzz(100_000, seed=2)


LONG = [
    *ATOMS,
    "a=",
    "-p ",
    "mysql -p",
    "eyJ-",
    "a.",
    "://a:",
    "<token>",
    "password=;a",
    "token='",
    'password="',
]


@pytest.mark.slow
@pytest.mark.parametrize("atom", LONG)
def test_long_texts_take_linear_time(atom: str) -> None:
    # with a rule that takes quadratic time this would run for hours
    for text in (atom * (200_000 // len(atom)), f"mysql {atom * (200_000 // len(atom))}!"):
        assert len(redact_command(text)) <= 3 * len(text)


def test_events_are_redacted_by_what_their_attributes_are_called() -> None:
    attributes = {
        "command": "/usr/bin/mysql -psecret1",
        "exe": "/opt/ghp_a1B2c3D4e5F6g7H8i9J0/tool",
        "path": "/srv/x?token=secret2",
        "DB_PASSWORD": "secret3",
        "api_token": 12345,
        "secret_seen": True,
        "password": "",
        "token": None,
        "size": 7,
    }
    event = LiveEvent("e", 1, "h", "p", "EXECUTE", attributes=attributes)
    found = redact_event(event)
    assert dict(found.attributes) == attributes | {
        "command": "/usr/bin/mysql -p***",
        "exe": "/opt/***/tool",
        "path": "/srv/x?token=***",
        "DB_PASSWORD": MASK,
        "api_token": MASK,
    }
    assert redact_event(found) == found


def test_rules_are_documented_and_programs_have_flags() -> None:
    assert all(what and callable(find) for find, what in RULES.values())
    assert all(flags and all(flag[0] in "-/" for flag in flags) for flags in PROGRAM_FLAGS.values())


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("KEY", True),
        ("SSH_KEY", True),
        ("sshKey", True),
        ("authToken", True),
        ("keyboard", False),
        ("author", False),
    ]
    + [
        ("Key", False),
        ("token_type", False),
        ("passwordPolicy", False),
        ("", False),
        ("--", False),
        ("PASS", True),
    ],
)
def test_names(name: str, secret: bool) -> None:
    assert is_secret_name(name) == secret


@given(st.text(), st.integers(20, 60))
@example("\u202eabc\x1b]0;x\x07", 20)
@example("\ud800" * 9, 20)
def test_safe_text_is_one_printable_line_of_bounded_length(text: str, limit: int) -> None:
    shown = safe_text(text, limit)
    assert shown.isprintable() and len(shown) <= limit
    assert safe_text(shown, limit) == shown
    if text.isprintable() and len(text) <= limit:
        assert shown == text
    shown.encode()


def test_what_is_cut_off_is_counted() -> None:
    assert safe_text("\n" * 100, limit=20) == "\\n" * 5 + "...[+95]"
    assert safe_text("\n" * 10, limit=20) == "\\n" * 10
