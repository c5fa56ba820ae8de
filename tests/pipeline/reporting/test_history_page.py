import pytest

from pipeline.reporting.history_page import history_page

ODD = "<img src=x onerror=alert(1)>\"'"


def story(n=44):
    """Batches of a year, with a retrain and two batches that were not scored."""
    return [
        {
            "batch": f"2026-{1 + k // 4:02}-{1 + 7 * (k % 4):02}",
            "rows": 100,
            "drifted": ["temp"] if k == 9 else [],
            "causes": [ODD] if k == 3 else [],
            "state": "broken" if k == 3 else "moved" if k == 9 else "quiet",
            "action": "retrain" if k == 9 else "page" if k == 3 else "none",
            "version": 1 + (k > 9),
            "maintained": {} if k in {3, 5} else {"log_loss": 0.4},
            "alone": {"log_loss": 0.5},
        }
        for k in range(n)
    ]


def drawn(rows):
    return history_page(rows, model="shop", loss="log_loss", conf="conf/shop.yaml")


def test_a_history_says_what_maintaining_was_worth(read_page):
    page = read_page(text := drawn(story()))

    assert page.heading() == "shop: batches judged 44, retrains 1, champions 2"
    assert "0.4 maintained and 0.5 left alone: +20.00% gained" in page.words
    assert page.words.count("new champion") == 2
    assert "<img" not in text
    assert len(text) < 100_000


def test_every_verdict_is_read_aloud(read_page):
    (_, verdicts) = read_page(drawn(story())).labels()

    assert verdicts.startswith("Verdicts: 2026-01-01 quiet; ")
    assert "2026-01-22 broken, page; " in verdicts
    assert verdicts.count(";") == 43


@pytest.mark.parametrize("rows", [[], story(1), [row | {"alone": {}} for row in story(3)]])
def test_a_short_history_and_one_without_labels_have_a_page(rows, read_page):
    assert "Batch by batch" in read_page(drawn(rows)).of("h2")


def test_estimates_stand_beside_what_labels_showed(read_page):
    rows = story(6)
    rows[5]["estimated"] = {"value": 0.45, "low": 0.41, "high": 0.49}

    said = read_page(drawn(rows)).words

    assert "estimates before labels came (short)" in said
    assert "0.45 (0.41 to 0.49)" in said
