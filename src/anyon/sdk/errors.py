"""What goes wrong between a client and the server.

ApiError                  the server answered with an error
└── UnreachableError      no answer came at all
"""


class ApiError(Exception):
    """An error the server told: its HTTP status, a stable code, what happened and what to do.

    ``request_id`` is what the server's log has it under, empty where it named none.
    """

    def __init__(
        self, status: int, code: str, message: str, hint: str = "", request_id: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.request_id = request_id


class UnreachableError(ApiError):
    """Nothing answered at the server's address, or the connection was lost for good."""

    def __init__(self, address: str, detail: str) -> None:
        super().__init__(
            0,
            "server_unreachable",
            f"no answer from {address}: {detail}",
            "Start the server with `anyon serve`, or name its address with --server or ANYON_SERVER.",
        )
