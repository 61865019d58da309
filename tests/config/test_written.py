from __future__ import annotations

import pytest

from config.settings import MAIL_NEEDS, SettingsError, load, variable
from tests.config.test_settings import PRODUCTION


@pytest.mark.parametrize("url", ["smtp://u:p@mail.example:587", "smtps://mail.example", "ses://eu-west-1"])
def test_mail_is_delivered_by_smtp_or_ses(url: str) -> None:
    more = {variable("mail_from"): "Expendi <a@expendi.example>", variable("public_url"): "https://expendi.example"}
    assert load({**PRODUCTION, **more, variable("mail_url"): url}).mail_url.get_secret_value() == url


@pytest.mark.parametrize("url", ["https://mail.example", "smtp:", "mail.example", "smtp://u:secret@host:port"])
def test_other_mail_servers_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(SettingsError, match="EXPENDI_MAIL_URL") as refused:
        load({**PRODUCTION, variable("mail_url"): url})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("sender", ["a@b", "Expendi <nobody>", "Expendi <a@b>\nBcc: <c@d>", "A <a@b> <c@d>"])
def test_sender_is_a_name_and_one_address(sender: str) -> None:
    with pytest.raises(SettingsError, match="EXPENDI_MAIL_FROM"):
        load({**PRODUCTION, variable("mail_from"): sender})


@pytest.mark.parametrize("field", MAIL_NEEDS)
def test_mail_in_production_needs_a_sender_and_our_address(field: str) -> None:
    more = {variable("mail_from"): "Expendi <a@expendi.example>", variable("public_url"): "https://expendi.example"}
    del more[variable(field)]
    assert load({**PRODUCTION, **more})
    with pytest.raises(SettingsError, match=variable(field)):
        load({**PRODUCTION, **more, variable("mail_url"): "smtp://mail.example"})
