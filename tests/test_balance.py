import pytest
import torch
from torch.testing import assert_close

from configs import odd_config
from minimodels.balance import batch_loss, max_violation, sequence_loss, update_bias
from minimodels.moe import Gate, Routing

B, T, E, K = 3, 7, 13, 4


def routing_of(score, K):
    expert = score.topk(K, dim=-1).indices
    return Routing(score, expert, score.gather(1, expert), torch.bincount(expert.flatten(), minlength=score.shape[1]))


def equations_17_to_20(score, K):
    """V3 eqs. 17-20 for one sequence, score[t][i]; without alpha."""
    T, E = len(score), len(score[0])
    top = [sorted(range(E), key=lambda i: -s[i])[:K] for s in score]
    total = 0.0
    for i in range(E):
        f_i = E / (K * T) * sum(i in chosen for chosen in top)  # eq. 18
        p_i = sum(s[i] / sum(s) for s in score) / T  # eqs. 19, 20
        total += f_i * p_i  # eq. 17
    return total


def test_the_sequence_loss_is_equations_17_to_20_averaged_over_sequences():
    score = torch.rand(B * T, E)
    by_sequence = [equations_17_to_20(score[b * T:(b + 1) * T].double().tolist(), K) for b in range(B)]
    assert_close(sequence_loss(routing_of(score, K), B).item(), sum(by_sequence) / B, atol=1e-6, rtol=1e-6)


def test_the_batch_loss_is_the_same_sum_over_all_sequences_at_once():
    score = torch.rand(B * T, E)
    assert_close(batch_loss(routing_of(score, K)).item(), equations_17_to_20(score.double().tolist(), K), atol=1e-6, rtol=1e-6)


def test_the_sequence_loss_looks_at_scores_and_the_batch_loss_at_choices():
    routing = routing_of(torch.rand(B * T, E), K)
    all_to_0 = torch.zeros_like(routing.expert)
    biased = Routing(routing.score, all_to_0, routing.weight, torch.bincount(all_to_0.flatten(), minlength=E))
    assert_close(sequence_loss(biased, B), sequence_loss(routing, B), atol=0, rtol=0)
    share_of_0 = (routing.score / routing.score.sum(-1, keepdim=True)).mean(0)[0]
    assert_close(batch_loss(biased), E * share_of_0)


def in_turn(n):
    """Each of 4 experts is the best of a token in turn."""
    return torch.tensor([[0.9 if i == t % 4 else 0.1 for i in range(4)] for t in range(n)])


def test_both_losses_are_one_when_experts_take_turns():
    for loss in (sequence_loss(routing_of(in_turn(8), 1), 2), batch_loss(routing_of(in_turn(8), 1))):
        assert_close(loss, torch.tensor(1.0))


def test_both_losses_are_e_over_k_when_one_set_of_experts_takes_all():
    score = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]).expand(6, 6)
    for loss in (sequence_loss(routing_of(score, 2), 3), batch_loss(routing_of(score, 2))):
        assert_close(loss, torch.tensor(3.0))


def test_a_batch_may_be_balanced_whose_sequences_are_not():
    # each of four sequences has a favourite of its own
    score = in_turn(4).repeat_interleave(5, dim=0)
    assert_close(batch_loss(routing_of(score, 1)), torch.tensor(1.0))
    assert_close(sequence_loss(routing_of(score, 1), 4), torch.tensor(4 * 0.9 / 1.2))


@pytest.mark.parametrize("loss", [lambda r: sequence_loss(r, B), batch_loss], ids=["sequence", "batch"])
def test_the_gradient_is_that_of_finite_differences_with_the_choices_held(loss):
    score = torch.rand(B * T, E, dtype=torch.float64)
    chosen = routing_of(score, K)
    assert torch.autograd.gradcheck(lambda s: loss(Routing(s, chosen.expert, chosen.weight, chosen.load)), score.requires_grad_())


def test_the_loss_pushes_a_busy_experts_score_down():
    score = (torch.rand(B * T, E) + torch.eye(E)[5]).requires_grad_()  # expert 5 is always chosen
    sequence_loss(routing_of(score, K), B).backward()
    assert (score.grad[:, 5] > 0).all()


def test_a_bias_moves_by_gamma_against_the_sign_of_its_excess():
    gate = Gate(odd_config(n_experts=5))
    gate.bias.copy_(torch.tensor([0.5, 0.0, -0.5, 0.0, 0.25]))
    update_bias(gate, torch.tensor([10, 0, 3, 4, 3]), 0.125)  # the mean is 4
    assert gate.bias.tolist() == [0.375, 0.125, -0.375, 0.0, 0.375]


def test_the_bias_evens_out_a_skewed_router_without_touching_its_weights():
    gate = Gate(odd_config())
    generator = torch.Generator().manual_seed(1)
    favourite = torch.randn(23, generator=generator)
    before = gate.weight.detach().clone()

    def batch():
        # tokens that lean one way make some experts the best for nearly all of them
        return torch.randn(211, 23, generator=generator) + favourite

    with torch.no_grad():
        skewed = max_violation(gate(batch()).load)
        for _ in range(400):
            update_bias(gate, gate(batch()).load, 0.01)
        balanced = max_violation(sum(gate(batch()).load for _ in range(20)))
    assert skewed > 1 and balanced < 0.2
    assert_close(gate.weight, before, atol=0, rtol=0)


def test_max_violation_by_hand():
    assert max_violation(torch.tensor([4, 4, 4])) == 0
    assert max_violation(torch.tensor([2, 4, 9])) == pytest.approx(4 / 5)
    assert max_violation(torch.tensor([0, 15, 0])) == pytest.approx(2)  # E - 1: one expert has everything


def test_max_violation_of_no_token_at_all_is_an_error():
    with pytest.raises(ValueError, match="load must count at least one token, got none"):
        max_violation(torch.zeros(5))
