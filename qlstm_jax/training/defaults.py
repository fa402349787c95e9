"""Every key of a run, with its default value and what it means."""

from ml_collections import ConfigDict, config_dict

from qlstm_jax import registry


def default() -> ConfigDict:
    """Every key of a run with its default value, locked: keys can be changed but not added."""
    config = config_dict.create(
        task="parity_check",  # a formal language, or the name of one of the sections that follow
        seed=0,
        formal=config_dict.create(
            min_length=1,  # training lengths, drawn uniformly
            max_length=40,
            mixed_lengths=True,  # one length for each sequence, or one for each batch as in the paper
            curriculum=0.0,  # share of the steps over which the longest length grows evenly from min to max
            associativity=0.0,  # weight of the penalty of qlstm_jax.cells.pr_lstm.regularization, for pr_lstm
        ),
        recall=config_dict.create(
            length=1024,  # tokens of noise
            num_classes=8,
            num_noise=8,
        ),
        mqar=config_dict.create(
            length=64,  # tokens, pairs and questions together
            num_pairs=4,
            num_keys=64,
            num_values=64,
        ),
        adding=config_dict.create(
            length=200,  # numbers, two of them marked
        ),
        copy=config_dict.create(
            length=100,  # blanks between the symbols and go
            num_symbols=10,
            alphabet=8,
        ),
        digits=config_dict.create(
            mode="pixels",  # pixels: an image of 64 steps; clips: two digits that move, a frame a step
            validation=0.1,  # shares of the images
            test=0.2,
            split_seed=0,
            frames=20,  # clips
            canvas=16,  # clips: pixels of a side
            speed=1.0,  # clips: pixels a frame
        ),
        text=config_dict.create(
            path="",  # a csv, tsv or jsonl file, or a folder of class folders
            dataset="",  # or a TFDS name, imdb_reviews; then path may name a local copy, aclImdb or its .tar.gz
            text_column="text",
            label_column="label",
            on_bad_row="error",  # or skip: count and report them
            validation=0.1,  # shares of the rows
            test=0.1,
            split_seed=0,
            tokenizer="word",  # word, bpe or byte
            vocab_size=20000,
            min_frequency=2,
            lowercase=True,
            max_length=256,  # tokens; longer texts are cut
            label_smoothing=0.0,  # share of the target that is spread over all labels
            num_buckets=4,  # lengths that are compiled for
        ),
        lm=config_dict.create(
            path="",  # a file or a folder of text files; "" is the sources of Python's own standard library
            dataset="",  # or a TFDS name, tiny_shakespeare; then path may name the folder of TFDS's datasets
            feature="text",  # of that dataset, that holds the text
            pattern="*.txt",  # a folder: names of its files, at any depth
            max_bytes=0,  # cut after so many bytes, of a dataset each part; 0: all
            validation=0.05,  # shares of the bytes, where a dataset has not both parts itself
            test=0.05,
            split_seed=0,
            tokenizer="byte",  # byte or bpe
            vocab_size=4096,  # bpe
            length=128,  # tokens of a window, through which gradients go back
            restart=0,  # windows after which a row drops its carry in training, rows taking turns; 0: at the text's end
            validation_tokens=65536,  # at most, of the validation part
        ),
        series=config_dict.create(
            path="",  # a csv file, a row for each time
            header="auto",  # whether its first row holds names: auto, yes or no
            columns="",  # to read, separated by commas; "": all of numbers
            targets="",  # to forecast, of these; "": all
            context=96,  # rows that are seen
            horizon=24,  # rows that are forecast
            loss="gaussian",  # gaussian: mean and variance; point: mean alone
            from_last=False,  # whether the mean is forecast as a change from the last value
            period=0,  # rows of a season, for the seasonal naive forecast of the report; 0: none
            validation=0.1,  # shares of the rows
            test=0.2,
        ),
        model=config_dict.create(
            cell="pr_lstm",
            hidden_size=64,
            num_layers=1,
            bidirectional=False,
            dropout=0.0,  # between layers, within a transformer's blocks, and before the readout
            embedding_size=64,  # of tokens: recall, mqar, copy, text and lm
            embedding_dropout=0.0,
            variational=False,  # dropout between layers and of tokens: the same channels at all positions of a row
            pooling="last",  # recall, adding, digits, text and series: last, mean, max or mean_max
            readout="relu",  # formal languages: what acts on h before the last linear map
            dtype="float32",
            **registry.cell_options(),
        ),
        train=config_dict.create(
            steps=1000,
            batch_size=128,  # of all devices together
            optimizer="adam",
            learning_rate=1e-3,
            schedule="constant",
            warmup_steps=0,
            weight_decay=0.0,  # adamw
            clip_norm=1.0,  # of the global norm of the gradient
            weight_dropout=0.0,  # rate on the recurrent kernels
            average_decay=0.0,  # of the average of the parameters that is evaluated; 0: the parameters themselves
            patience=0,  # validations without a better one after which training ends; 0: never
            log_every=50,
            eval_every=500,
            checkpoint_every=500,
            keep_checkpoints=2,
            select="last",  # which parameters eval.py takes: the last, or the best on validation
            mapping="shard_map",  # or pmap
            num_devices=0,  # 0: all
        ),
        eval=config_dict.create(
            min_length=41,  # formal languages: lengths of the score
            max_length=500,
            stride=1,  # formal languages: every length, or every so many
            sequences=64,  # formal languages: for each length; other sampled tasks: 256 at least for each
            longest=4,  # other sampled tasks: lengths up to so many times the training length, doubling
            tokens=262144,  # lm: at most, of the test part
        ),
    )
    config.lock()
    return config
