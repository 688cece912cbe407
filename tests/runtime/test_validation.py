"""What is decided on the validation part: the checkpoint that is kept, and the threshold that it answers from."""

from phalanx.runtime.validation import merit


def test_least_loss_decides_which_checkpoint_is_kept_where_answers_have_consequences_and_f1_where_not() -> (
    None
):
    played = [{"eval/f1": 0.9, "eval/loss": 12.0}, {"eval/f1": 0.2, "eval/loss": 9.0}]
    assert max(played, key=merit) is played[1]
    recorded = [{"eval/f1": 0.4}, {"eval/f1": 0.6}, {"eval/f1": float("nan")}]
    assert max(recorded, key=merit) is recorded[1]
