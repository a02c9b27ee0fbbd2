"""Requests made from the service's own OpenAPI, right and wrong ones: answers keep to it, and none
is an error of the service."""

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

LEFT_OUT = {"positive_data_acceptance"}
"""A schema cannot say which models, tasks and files there are."""
QUICK = settings(
    max_examples=5,
    suppress_health_check=list(HealthCheck),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)


def test_answers_keep_to_the_schema(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    left_out = [check for check in CHECKS.get_all() if check.__name__ in LEFT_OUT]
    tried = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        wrong = [GenerationMode.NEGATIVE] if len(operation.body) else []  # nothing else has a form
        for mode in [GenerationMode.POSITIVE, *wrong]:

            @QUICK
            @given(case=operation.as_strategy(generation_mode=mode))
            def try_one(case: schemathesis.Case) -> None:
                case.call_and_validate(excluded_checks=left_out)

            try_one()
        tried.add(operation.path)
    assert {"/v1/embeddings", "/v2/embed", "/classify", "/tasks/{name}"} <= tried
