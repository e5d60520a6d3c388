"""The application for servers whose worker processes import it and nothing else of ours."""

import oxloop

oxloop.install()

from .application import application  # noqa: E402, F401 - after install(), as one would write it
