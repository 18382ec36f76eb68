from serving.roles import Role
from tests.fixtures.api import make_headers


def test_the_service_names_itself_to_every_role(client, production_version):
    for role in Role:
        info = client.get("/", headers=make_headers(role)).json()
        assert (info["service"], info["release_version"]) == ("MHRAS", production_version)
        assert info["environment"] == "production"


def test_the_intended_use_is_public_and_says_what_the_answers_are_not(client):
    page = client.get("/intended-use").text

    assert "Not a diagnosis" in page
    assert "not been clinically validated" in page
    assert "http" not in page.split("</head>")[1]
