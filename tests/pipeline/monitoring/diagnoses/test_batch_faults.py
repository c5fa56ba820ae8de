import numpy as np
import pandas as pd
import pytest

from pipeline.config import Categorical, Numeric
from pipeline.monitoring.drift import compare
from pipeline.reference import Reference

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("column", ["temp", "region"])
def test_a_column_that_is_missing_is_named(shop, batch, column):
    report = shop.judge(batch.drop(columns=column))

    shop.assert_named(report, "schema", column, figure="missing from the batch")


@pytest.mark.parametrize(
    ("column", "other"), [("temp", "TEMP"), ("amount", "amount_v2"), ("product", "item")]
)
def test_a_renamed_column_is_found_under_its_new_name(shop, batch, column, other):
    report = shop.judge(batch.rename(columns={column: other}))

    shop.assert_named(report, "schema", column, figure=repr(other))


def test_a_new_column_of_other_values_is_not_a_renamed_column(shop, batch):
    report = shop.judge(batch.drop(columns="temp").assign(shelf=np.arange(len(batch))))

    shop.assert_named(report, "schema", "temp", figure="missing from the batch.")


@pytest.mark.parametrize("part", ["all", "some"])
def test_numbers_that_arrive_as_text_are_recognised(shop, batch, part):
    mask = shop.touch(batch, part)
    text = batch["amount"].map("{:.2f} EUR".format)
    report = shop.judge(batch.assign(amount=batch["amount"].astype(object).where(~mask, text)))

    shop.assert_named(report, "schema", "amount", figure=f"{mask.mean():.0%}", mask=mask)


def test_text_that_reads_as_a_number_is_not_a_fault(shop, batch):
    report = shop.judge(batch.assign(amount=batch["amount"].map("{:.2f}".format)))

    assert report.causes == ()


def test_numbers_that_arrive_as_booleans_are_recognised(shop, batch):
    report = shop.judge(batch.assign(temp=batch["temp"] > 50))

    shop.assert_named(report, "schema", "temp", figure="true and false")


@pytest.mark.parametrize("rows", [60, 20_000])
def test_a_batch_of_far_fewer_or_more_rows_is_recognised(shop, rows):
    report = shop.judge(shop.draw(3, rows))

    shop.assert_named(report, "volume", figure=f"{rows:,} rows where 2,000 are usual")


@pytest.mark.parametrize("rows", [400, 8_000])
def test_a_batch_of_a_fifth_to_four_times_the_rows_is_not_a_fault(shop, rows):
    assert shop.judge(shop.draw(3, rows)).causes == ()


@pytest.mark.parametrize(("part", "share"), [("all", 0.5), ("some", 0.3 / 1.3)])
def test_rows_that_arrive_twice_are_counted(shop, batch, part, share):
    twice = pd.concat([batch, batch[shop.touch(batch, part)]], ignore_index=True)
    report = shop.judge(twice)

    shop.assert_named(report, "duplicate")
    assert report.causes[0].share == pytest.approx(share, rel=0.1)
    assert f"{report.causes[0].share:.0%} of the rows" in report.causes[0].sentence


@pytest.mark.parametrize("twice", [False, True])
def test_rows_of_frequent_values_repeat_by_themselves_and_others_do_not(shop, twice):
    """Values concentrate, so that about as many rows repeat as if a tenth had come twice."""
    random = np.random.default_rng(0)

    def draw(n, decay):
        shares = decay ** np.arange(40)
        return pd.DataFrame(
            {
                name: random.choice(40, n, p=shares / shares.sum()).astype(str)
                for name in ("job", "town", "shop", "kind")
            }
        )

    columns = dict.fromkeys(("job", "town", "shop", "kind"), Categorical())
    reference = shop.fit(draw(12_000, 0.88), columns)
    now = pd.concat([rows := draw(1_500, 0.88), rows[:150]]) if twice else draw(1_500, 0.77)
    repeated = now.duplicated().mean()
    report = compare(reference=reference, current=now.reset_index(drop=True))

    assert 0.05 < repeated < 0.2
    assert [cause.cause for cause in report.causes] == ["duplicate"] * twice


def test_old_rows_sent_again_are_recognised(shop):
    report = shop.judge(shop.trained.sample(2_000, random_state=1))

    shop.assert_named(report, "duplicate", figure="training sample")


def test_a_block_of_training_rows_sent_again_is_recognised(shop):
    report = shop.judge(shop.trained[2_000:4_000])

    shop.assert_named(report, "duplicate", figure="earlier one")


def test_the_previous_batch_sent_again_is_recognised(shop, batch):
    recent = [shop.judge(rows, diagnosis=False).summary for rows in (shop.draw(4), batch)]
    report = shop.judge(batch.sample(frac=1, random_state=1), recent=recent)

    shop.assert_named(report, "duplicate", figure="earlier one")


def test_a_batch_sent_again_is_recognised_by_its_valid_rows(shop, batch):
    refused = shop.draw(9, n=200).assign(hour=99)
    arrived = pd.concat([batch, refused], ignore_index=True)
    recent = [shop.judge(rows, diagnosis=False).summary for rows in (shop.draw(4), batch)]

    report = shop.judge(batch, arrived=arrived, recent=recent)
    assert "duplicate" in {cause.cause for cause in report.causes}
    alone = shop.judge(batch, arrived=arrived, recent=recent[:1])
    assert "duplicate" not in {cause.cause for cause in alone.causes}


@pytest.mark.parametrize("rows", [1, 5])
def test_a_few_rows_repeated_over_and_over_are_frozen(shop, batch, rows):
    report = shop.judge(batch.iloc[np.arange(len(batch)) % rows])

    shop.assert_named(report, "frozen", figure=f"{len(batch) // rows:,} times")
    assert report.causes[0].share == 1


def test_a_single_row_in_a_third_of_the_batch_is_frozen(shop, batch):
    last = np.minimum(np.arange(len(batch)), 1_750)
    report = shop.judge(batch.iloc[last])

    shop.assert_named(report, "frozen", figure="30% of the rows")
    assert report.causes[0].share == pytest.approx(0.3, rel=0.1)


SMALL = {"load": Numeric(), "tail": Numeric(), "on": Numeric(), "plan": Categorical()}


def small(random, n):
    """Rows of which a small sample shows each number once, and each label often."""
    return pd.DataFrame(
        {
            "load": random.normal(size=n),
            "tail": random.standard_cauchy(n),
            "on": random.integers(0, 2, n).astype(float),
            "plan": random.choice(["a", "b"], n),
        }
    )


@pytest.mark.parametrize("columns", [list(SMALL), ["tail", "on", "plan"]])
def test_new_rows_that_agree_with_a_small_sample_by_chance_are_not_old(columns):
    random = np.random.default_rng(3)
    known = {name: SMALL[name] for name in columns} | {"kind": Categorical()}

    def drawn(n):
        return small(random, n)[columns].assign(kind=random.choice(["x", "y", "z"], n))

    found = []
    for _ in range(10):
        reference = Reference.fit(drawn(720), known, block=60)
        found += [
            [cause.cause for cause in compare(reference=reference, current=drawn(60)).causes]
            for _ in range(6)
        ]

    # At most one batch in a hundred; three or more of 60 would come with a chance of 2%.
    assert sum(map(bool, found)) <= 2


def test_old_rows_of_a_small_sample_are_recognised():
    random = np.random.default_rng(4)
    trained = small(random, 720)
    reference = Reference.fit(trained, SMALL, block=60)

    report = compare(reference=reference, current=trained.sample(60, random_state=1))

    assert [cause.cause for cause in report.causes] == ["duplicate"]


def test_other_rows_beyond_all_training_rows_are_not_sent_again(shop):
    random = np.random.default_rng(3)

    def draw(n, low):
        return pd.DataFrame({name: random.uniform(low, low + 9, n) for name in "abcdefgh"})

    rows = draw(16_000, 0)
    reference = shop.fit(rows, {name: Numeric() for name in rows})
    earlier = reference.summarise(draw(2_000, 20))

    again = compare(reference=reference, current=draw(2_000, 40), recent=[earlier])

    assert "duplicate" not in {cause.cause for cause in again.causes}
