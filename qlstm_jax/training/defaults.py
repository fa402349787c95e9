"""Every key of a run with its default value: the sections of all problems, and those of the model and the training."""

from ml_collections import ConfigDict, config_dict

from qlstm_jax.models.layers import layer_options
from qlstm_jax.problems import PROBLEMS


def default() -> ConfigDict:
    """Returns every key of a run with its default value, locked: keys can be changed but not added.

    The section of a problem has its comments in the problem's module, `qlstm_jax/problems/NAME.py`.
    """
    config = config_dict.create(
        problem="formal",  # the name of one of the sections that follow
        seed=0,
        **{name: problem.defaults() for name, problem in PROBLEMS.items()},
        model=model_section(),
        train=train_section(),
        parallel=parallel_section(),
        eval=eval_section(),
    )
    config.lock()
    return config


def model_section() -> ConfigDict:
    """Returns the section of the model: a layer's name, its sizes, and a section of options for each kind of layer."""
    return config_dict.create(
        cell="pr_lstm",
        hidden_size=64,
        num_layers=1,
        bidirectional=False,
        dropout=0.0,  # between layers, within a transformer's blocks, and before the readout
        embedding_size=64,  # of tokens: recall, mqar, copying, text and lm
        embedding_dropout=0.0,
        variational=False,  # dropout between layers and of tokens: the same channels at all positions of a row
        pooling="last",  # recall, adding, digits, text and series: last, mean, max or mean_max
        readout="relu",  # formal languages: what acts on h before the last linear map
        dtype="float32",
        remat="none",  # layers: the gradient keeps what goes into a layer and computes the rest again
        **{name: ConfigDict(options) for name, options in layer_options().items()},
    )


def train_section() -> ConfigDict:
    """Returns the section of the training."""
    return config_dict.create(
        steps=1000,
        batch_size=128,  # of all devices together
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.0,  # adamw
        clip_norm=1.0,  # of the global norm of the gradient
        init_from="",  # the folder of a run whose weights a new one begins with
        freeze="",  # parameters that stay as they are: their paths with * for any letters, separated by commas
        weight_dropout=0.0,  # rate on the recurrent kernels
        average_decay=0.0,  # of the average of the parameters that is evaluated; 0: the parameters themselves
        patience=0,  # validations without a better one after which training ends; 0: never
        log_every=50,
        eval_every=500,
        checkpoint_every=500,
        keep_checkpoints=2,
        select="last",  # which parameters eval.py takes: the last, or the best on validation
        select_metric="",  # the validation metric that says what is best, such as loss; "": the problem's own
        accumulate=1,  # pieces of a batch that are computed one after another, in the memory of one
        param_dtype="float32",  # of parameters in a step; bfloat16 rounds those of float32 that are trained and saved
        mapping="",  # shard_map, pmap or jit; "": jit on a mesh, else shard_map
        num_devices=0,  # 0: all
    )


def parallel_section() -> ConfigDict:
    """What lies where, of a run on many devices."""
    return config_dict.create(
        mesh="",  # such as data:2,fsdp:4; "": every device has all parameters
        hosts="",  # auto: join the other processes of a cluster that jax knows; see docs/scaling.md
    )


def eval_section() -> ConfigDict:
    """Returns the section of the evaluation."""
    return config_dict.create(
        min_length=41,  # formal languages: lengths of the score
        max_length=500,
        stride=1,  # formal languages: every length, or every so many
        sequences=64,  # formal languages: for each length; other sampled problems: 256 at least for each
        longest=4,  # other sampled problems: lengths up to so many times the training length, doubling
        tokens=262144,  # lm: at most, of the test part
    )
