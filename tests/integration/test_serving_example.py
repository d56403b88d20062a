from pathlib import Path

import mlflow
import pytest
from samples import STATIC, WORDS_STUDENT

from distill_tasks.measuring.footprint import REQUIREMENTS, pin

SERVING = Path(__file__).parents[2] / "examples" / "serving"


def listed(runtime):
    return sorted((SERVING / "requirements" / f"{runtime}.txt").read_text().splitlines())


@pytest.mark.parametrize(
    ("runtime", "student"), [("static", STATIC), ("bag_of_words", WORDS_STUDENT)]
)
def test_the_image_installs_what_the_model_asks_for(house, runtime, student):
    house.crown(f"image-{runtime}", student)
    wanted = mlflow.pyfunc.get_model_dependencies(f"models:/image-{runtime}@champion")
    assert listed(runtime) == sorted(Path(wanted).read_text().splitlines())


@pytest.mark.parametrize("runtime", [name for name in REQUIREMENTS if name != "transformers"])
def test_every_runtime_without_torch_has_its_list(runtime):
    assert listed(runtime) == sorted(pin(["mlflow", *REQUIREMENTS[runtime]]))


def test_the_image_names_a_list_that_is_there():
    lines = (SERVING / "Dockerfile").read_text().splitlines()
    default = next(line for line in lines if line.startswith("ARG RUNTIME=")).split("=")[1]
    assert default in REQUIREMENTS
    assert "COPY requirements/${RUNTIME}.txt /requirements.txt" in lines
