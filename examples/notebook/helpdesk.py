"""Support tickets drawn from a seed: what stands for your own table, and for an LLM that reads it.

Each ticket names one thing out of the thirty or so that a queue deals with, in words that all
queues use. A few hundred labelled tickets do not name them all, so there is something to learn from
the thousands without a label. `python helpdesk.py` writes three csv files where it is started.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

THINGS = {
    "account": (
        "password login username email_address profile two-factor_code sign-in captcha avatar "
        "settings_page recovery_link permissions role invitation single_sign-on security_question "
        "logout registration nickname membership newsletter preferences consent identity_check "
        "access_rights authenticator locked_account display_name privacy_settings"
    ),
    "billing": (
        "invoice charge payment credit_card receipt bank_statement price fee sales_tax discount "
        "direct_debit bank_transfer currency coupon gift_voucher balance due_date reminder_fee "
        "instalment billing_address credit_note surcharge cheque deposit quote purchase_order "
        "overpayment subscription_fee exchange_rate cashback"
    ),
    "delivery": (
        "parcel courier shipment tracking_number package delivery_van doorstep postcode customs "
        "warehouse dispatch pickup_point letterbox carton freight pallet express_delivery depot "
        "parcel_locker arrival_date transit porch shipping_label driver delivery_slot neighbour "
        "damaged_box wrong_address postman"
    ),
    "technical": (
        "crash error_message frozen_screen software_update installation battery bluetooth wifi "
        "firmware reboot keyboard speaker camera sensor power_button cable charger display "
        "overheating app memory_card synchronisation printer microphone usb_port fan backup "
        "hard_disk touchscreen"
    ),
}
"""What each queue deals with; an underscore stands for a space."""
OPENINGS = ("hello", "hi there", "good morning", "dear team", "to whom it may concern", "hey")
SENTENCES = (
    "i have a problem with the {}",
    "there is something wrong with my {}",
    "please look into the {} for me",
    "i wrote last week about the {}",
    "could somebody explain the {} to me",
    "nobody could help me with the {} so far",
)
CLOSINGS = (
    "please answer soon",
    "thanks in advance",
    "this is the second time that i ask",
    "i have been a customer for years",
    "best regards",
    "i can be reached in the evening",
)
CLASSES = tuple(THINGS)
LEAST_SURE, MOST_SURE, MISTAKES = 0.7, 0.95, 0.03
"""How sure the pretended LLM is of its label, and how often that is wrong."""


def draw_tickets(rows: int, seed: int) -> pd.DataFrame:
    """Return so many tickets, no two alike, with columns text and label."""
    generator = np.random.default_rng(seed)
    labels: dict[str, str] = {}
    while len(labels) < rows:
        label = CLASSES[len(labels) % len(CLASSES)]
        thing = generator.choice(THINGS[label].split()).replace("_", " ")
        opening, sentence, closing = map(generator.choice, (OPENINGS, SENTENCES, CLOSINGS))
        number = generator.integers(10_000, 100_000)
        labels[f"{opening}, {sentence.format(thing)}. {closing}, ticket {number}"] = label
    return pd.DataFrame({"text": list(labels), "label": list(labels.values())})


def ask_llm(texts: Iterable[str], seed: int = 0) -> pd.DataFrame:
    """Return the probabilities of each class that an LLM might give, beside the texts."""
    generator, asked = np.random.default_rng(seed), list(texts)
    said = np.array([_find_label(text) for text in asked])
    mistaken = generator.random(len(asked)) < MISTAKES
    said[mistaken] = (said[mistaken] + 1) % len(CLASSES)
    sure = generator.uniform(LEAST_SURE, MOST_SURE, len(asked))[:, None]
    chosen = np.eye(len(CLASSES))[said]
    likely = chosen * sure + (1 - chosen) * (1 - sure) / (len(CLASSES) - 1)
    return pd.DataFrame(likely, columns=list(CLASSES)).assign(text=asked)


def _find_label(text: str) -> int:
    """Return the number of the class whose thing a ticket names; the longest name counts."""
    named = {
        name.replace("_", " "): number
        for number, things in enumerate(THINGS.values())
        for name in things.split()
    }
    return named[max((name for name in named if f" {name}" in text), key=len)]


def main() -> None:
    """Write tickets.csv and test.csv with labels, and unlabelled.csv without."""
    draw_tickets(240, seed=1).to_csv("tickets.csv", index=False)
    draw_tickets(2000, seed=2)[["text"]].to_csv("unlabelled.csv", index=False)
    draw_tickets(1000, seed=3).to_csv("test.csv", index=False)


if __name__ == "__main__":
    main()
