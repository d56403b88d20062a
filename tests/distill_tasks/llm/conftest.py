import pytest
from language_models import make_causal_model


@pytest.fixture(scope="session")
def tiny_causal_model():
    """A random Llama of 3 layers × 32, in float32."""
    return make_causal_model("llama")
