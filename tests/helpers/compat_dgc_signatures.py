"""Public names of `hsi_global_clustering` with their arguments and defaults, written down by hand."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import optim

NONE = inspect.Parameter.empty

# Every public callable with its arguments and their defaults, in order.
SIGNATURES: dict[str, dict[str, dict[str, Any]]] = {
    "dataset": {
        "JSONMATDataset": {
            "mat_dir": NONE,
            "data_key": "cube",
            "label_key": "label",
            "json_dir": None,
            "label_dir": None,
            "class_to_index": None,
            "transform": None,
            "normalize": None,
            "to_tensor": True,
            "full_loading": False,
        },
        "JSONMATDataset.load_all": {"self": NONE},
    },
    "hsi_processing": {
        "normalize_cube": {"cube": NONE, "method": "meanstd", "mean": None, "std": None},
        "batch_random_crop_pair": dict.fromkeys(("batch", "crop_size", "min_overlap", "max_overlap"), NONE),
        "batch_random_affine": dict.fromkeys(("imgs", "degrees", "translate", "scale_range"), NONE),
        "batch_wavelength_shift": {"imgs": NONE, "max_shift": NONE},
        "AugmentationPipeline": {
            "crop_size": NONE,
            "min_overlap": 0.2,
            "max_overlap": 0.8,
            "degrees": 10.0,
            "translate": 0.1,
            "scale_range": (0.9, 1.1),
            "max_shift_bands": 2,
        },
        "AugmentationPipeline.__call__": {"self": NONE, "batch": NONE},
    },
    "module": {
        "HyperspectralEncoder": {
            "num_bands": NONE,
            "n_spectral_layers": 3,
            "spectral_kernel_size": 3,
            "embed_dim": 32,
            "bias": True,
            "inplace": False,
        },
        "UnrolledMeanShift": {
            "embed_dim": 32,
            "n_clusters": 4,
            "num_iters": 5,
            "learn_bandwidth": True,
            "init_bandwidth": 1.0,
            "temp": 0.05,
            "use_approx": True,
            "kernel_size": 5,
        },
        "UnrolledMeanShift.forward": {
            "self": NONE,
            "embeddings": NONE,
            "eps": 1e-6,
            "return_probs": False,
            "return_labels": False,
        },
        "UnrolledMeanShift.get_cluster_centers": {"self": NONE},
        "UnrolledMeanShift.assign_clusters": {"self": NONE, "embeddings": NONE},
        "UnrolledMeanShift.compute_compactness_loss": {"self": NONE, "z_normed": NONE, "probs": NONE},
        "UnrolledMeanShift.compute_orthogonality_loss": {"self": NONE},
        "UnrolledMeanShift.compute_balance_loss": {"self": NONE, "probs": NONE, "eps": 1e-6},
        "UnrolledMeanShift.compute_uniform_assignment_loss": {"self": NONE, "probs": NONE, "eps": 1e-6},
        "UnrolledMeanShift.compute_consistency_loss": {"self": NONE, "p1": NONE, "p2": NONE, "eps": 1e-6},
        "UnrolledMeanShift.prune_low_mass_clusters": {"self": NONE, "probs": NONE, "threshold": 0.005},
    },
    "hsi_clustering": {
        "HyperspectralClusteringModel": {
            "num_bands": 301,
            "encoder_kwargs": None,
            "mean_shift_kwargs": None,
            "loss_weights": None,
        },
        "HyperspectralClusteringModel.forward": {
            "self": NONE,
            "x": NONE,
            "return_probs": False,
            "return_labels": False,
        },
        "HyperspectralClusteringModel.train_step": {
            "self": NONE,
            "crop1": NONE,
            "crop2": NONE,
            "lambda_unif": None,
            "lambda_orth": None,
            "lambda_bal": None,
            "lambda_cons": None,
        },
        "HyperspectralClusteringModel.inference": {"self": NONE, "x": NONE},
        "HyperspectralClusteringModel.save": {"self": NONE, "path": NONE},
        "HyperspectralClusteringModel.load": {"path": NONE, "device": "cpu", "override_init_args": NONE},
    },
    "trainer": {
        "set_seed": {"seed": NONE},
        "pad_and_stack": {"batch": NONE},
        "crop_and_stack": {"batch": NONE},
        "print_epoch_summary": {
            "epoch": NONE,
            "train_loss": NONE,
            "sup_metrics": None,
            "unsup_metrics": None,
            "total_epochs": None,
        },
        "HSIClusteringTrainer": {
            "train_dataset": NONE,
            "val_dataset": None,
            "augmentor": None,
            "model": None,
            "model_kwargs": {},
            "device": torch.device("cpu"),
            "optimizer_cls": optim.AdamW,
            "optimizer_kwargs": {"lr": 1e-4},
            "optim_scheduler_cls": None,
            "optim_scheduler_kwargs": {},
            "loss_weight_scheduling": {
                "lambda_unif": True,
                "lambda_orth": False,
                "lambda_bal": False,
                "lambda_cons": False,
            },
            "ema_decay": 0.99,
            "ema_kick": 0.05,
            "ema_kick_scheduling": True,
            "batch_size": 4,
            "num_workers": 8,
            "num_epochs": 10,
            "reuse_iter": 10,
            "grad_clip": 1.0,
            "precision": "bf16",
            "seed": 42,
            "log_dir": "./runs",
            "ckpt_dir": "./checkpoints",
            "save_interval": 1,
            "eval_interval": 1,
            "log_interval": 10,
            "early_stopping": False,
            "early_stopping_patience": 10,
            "early_stopping_metric": None,
        },
        "HSIClusteringTrainer.train": {"self": NONE},
        "HSIClusteringTrainer.inference": {
            "self": NONE,
            "dataset": NONE,
            "batch_size": None,
            "num_workers": None,
            "pin_memory": True,
            "auto_align": True,
            "manual_mapping": None,
            "progress_interval": None,
        },
    },
    "async_trainer": {
        "AsyncHSIClusteringTrainer": {
            "train_dataset": NONE,
            "val_dataset": None,
            "steps_per_epoch": None,
            "args": NONE,
            "kwargs": NONE,
        },
        "AsyncHSIClusteringTrainer.train": {"self": NONE},
    },
    "data_server": {
        "DataServer": {"dataset": NONE, "queue_size": 2, "shuffle": True},
        "DataServer.start": {"self": NONE},
        "DataServer.get_batch": {"self": NONE, "batch_size": NONE},
        "DataServer.stop": {"self": NONE},
    },
    "eval": {
        "iou_score": {"pred": NONE, "target": NONE, "num_classes": None},
        "dice_score": {"pred": NONE, "target": NONE, "num_classes": None, "beta": 1.0},
        "area_rmse": {"pred": NONE, "target": NONE, "num_classes": None},
        "cluster_entropy": {"labels": NONE, "num_classes": None},
        "mutual_information": {"labels1": NONE, "labels2": NONE, "num_classes": None},
        "normalized_mutual_information": {"labels1": NONE, "labels2": NONE, "num_classes": None, "eps": 1e-12},
        "variation_of_information": {"labels1": NONE, "labels2": NONE, "num_classes": None},
    },
    "utils": {
        "save_as_safetensors": {"tensors": NONE, "filename": NONE},
        "load_safetensors": {"filename": NONE, "device": "cpu", "extension_check": True},
        "split_patches": {"image": NONE, "scale_ratio": 2, "overlap": 0, "pad_mode": "reflect"},
        "merge_patches": {"patches": NONE, "split_info": NONE},
        "LinearWarmupDecayScheduler": {
            "init_value": NONE,
            "peak_value": NONE,
            "final_value": NONE,
            "warmup_steps": NONE,
            "total_steps": NONE,
            "last_step": -1,
        },
        "LinearWarmupDecayScheduler.step": {"self": NONE, "step": None},
        "LinearWarmupDecayScheduler.get_value": {"self": NONE, "step": None},
        "LinearWarmupDecayScheduler.__call__": {"self": NONE, "step": None},
    },
}

ATTRIBUTES = {
    "trainer": """device model precision augmentor train_loader val_loader optimizer optim_scheduler
        loss_weight_scheduling loss_weight_scheduler batch_size num_epochs reuse_iter ema_decay ema_kick grad_clip
        ema_kick_scheduler ema_kick_scheduling writer ckpt_dir save_interval eval_interval log_interval
        prev_epoch_preds early_stopping patience es_metric best_metric no_improve""",
    "model": "encoder cluster lambda_orth lambda_bal lambda_unif lambda_cons",
    "encoder": "num_bands n_spectral_layers spectral_kernel_size embed_dim bias inplace spectral_net spatial_net",
    "cluster": """embed_dim n_clusters num_iters learn_bandwidth temp use_approx kernel_size log_bandwidth
        cluster_centers bandwidth""",
}
