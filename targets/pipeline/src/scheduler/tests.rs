use super::*;

use PredictionType::{Epsilon, VPrediction};
use TimestepSpacing::{Leading, Trailing};

/// The configuration of SD v1.5.
const SD: SchedulerConfig = SchedulerConfig {
    train_steps: 1000,
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: BetaSchedule::ScaledLinear,
    prediction_type: Epsilon,
    timestep_spacing: Leading,
    steps_offset: 1,
    set_alpha_to_one: false,
};

/// Timestep and both pairs of coefficients of a step.
type Row = (usize, [f64; 2], [f64; 2]);

fn assert_rows(config: &SchedulerConfig, rows: &[Row]) {
    let steps = schedule(config, rows.len()).unwrap();
    assert_eq!(steps.len(), rows.len());
    for (step, (timestep, next, denoised)) in steps.iter().zip(rows) {
        assert_eq!(step.timestep, *timestep);
        let found = step.next.iter().chain(&step.denoised);
        for (found, expected) in found.zip(next.iter().chain(denoised)) {
            // The tables of diffusers are f32.
            let error = (f64::from(*found) - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-6, "{timestep}: {found}, expected {expected}");
        }
    }
}

// numpy in f64: betas = linspace(sqrt(b0), sqrt(b1), 1000)**2, abar = cumprod(1 - betas),
// cx = sqrt(abar'/abar), ce = sqrt(1 - abar') - sqrt(abar') sqrt(1 - abar) / sqrt(abar).
#[test]
fn epsilon_constants_are_those_of_the_formula_in_f64() {
    let leading = [
        (876, 1.7560520, -0.7683736),
        (751, 1.5674592, -0.5941317),
        (626, 1.4173190, -0.4652662),
        (501, 1.2981488, -0.3728223),
        (376, 1.2043244, -0.3096018),
        (251, 1.1316305, -0.2747859),
        (126, 1.0769399, -0.3605957),
        (1, 1.0004276, -0.0121421),
    ];
    let trailing = [
        (999, 1.9888278, -0.9934476),
        (874, 1.7526838, -0.7651796),
        (749, 1.5647771, -0.5917374),
        (624, 1.4151856, -0.4635231),
        (499, 1.2964610, -0.3715956),
        (374, 1.2030046, -0.3088061),
        (249, 1.1306208, -0.2745399),
        (124, 1.0757403, -0.3684218),
    ];
    for (timestep_spacing, table) in [(Leading, leading), (Trailing, trailing)] {
        let config = SchedulerConfig {
            timestep_spacing,
            ..SD
        };
        for (step, (timestep, cx, ce)) in schedule(&config, 8).unwrap().iter().zip(table) {
            assert_eq!(step.timestep, timestep);
            // Seven decimals, and a rounding to f32.
            for (found, expected) in step.next.into_iter().zip([cx, ce]) {
                let error = (f64::from(found) - expected).abs();
                assert!(error < 1.2e-7, "{timestep}: {found}, expected {expected}");
            }
        }
    }
}

// What diffusers' DDIMScheduler.step makes of the pairs (sample 1, output 0) and (sample 0, output 1): `prev_sample` and
// `pred_original_sample`.
#[test]
fn v_prediction_is_that_of_diffusers() {
    let config = SchedulerConfig {
        prediction_type: VPrediction,
        ..SD
    };
    let rows = [
        (876, [0.9946518, -0.1032849], [0.134420, -0.990924]),
        (751, [0.9901170, -0.1402440], [0.236049, -0.971741]),
        (626, [0.9850713, -0.1721469], [0.369997, -0.929033]),
        (501, [0.9807019, -0.1955093], [0.524403, -0.851470]),
        (376, [0.9775373, -0.2107625], [0.680754, -0.732512]),
        (251, [0.9742934, -0.2252827], [0.819848, -0.572581]),
        (126, [0.9423785, -0.3345487], [0.927765, -0.373164]),
        (1, [0.9999264, -0.0121314], [0.999148, -0.041279]),
    ];
    assert_rows(&config, &rows);
}

// As above.
#[test]
fn trailing_v_prediction_to_the_image_is_that_of_diffusers() {
    let config = SchedulerConfig {
        prediction_type: VPrediction,
        timestep_spacing: Trailing,
        set_alpha_to_one: true,
        ..SD
    };
    let rows = [
        (999, [0.9976978, -0.0678176], [0.068265, -0.997667]),
        (874, [0.9945891, -0.1038862], [0.135767, -0.990741]),
        (749, [0.9900369, -0.1408079], [0.237957, -0.971276]),
        (624, [0.9849934, -0.1725925], [0.372349, -0.928093]),
        (499, [0.9806419, -0.1958100], [0.526944, -0.849900]),
        (374, [0.9774937, -0.2109645], [0.683162, -0.730267]),
        (249, [0.9742132, -0.2256295], [0.821847, -0.569709]),
        (124, [0.9291970, -0.3695847], [0.929197, -0.369585]),
    ];
    assert_rows(&config, &rows);
}

// As above. 1000 / 7 is not whole, so the previous timestep is not always the next of the run.
#[test]
fn linear_betas_and_steps_that_do_not_divide_are_those_of_diffusers() {
    let linear = SchedulerConfig {
        beta_schedule: BetaSchedule::Linear,
        beta_start: 0.0001,
        beta_end: 0.02,
        steps_offset: 0,
        set_alpha_to_one: true,
        ..SD
    };
    let rows = [
        (852, [3.0685876, -2.0705993], [39.761989, -39.749412]),
        (710, [2.5029760, -1.5143449], [12.957749, -12.919105]),
        (568, [2.0428108, -1.0854836], [5.176937, -5.079437]),
        (426, [1.6682120, -0.7800643], [2.534223, -2.328580]),
        (284, [1.3630906, -0.5846572], [1.519125, -1.143565]),
        (142, [1.1144152, -0.4819559], [1.114471, -0.491981]),
        (0, [1.0000500, -0.0100013], [1.000050, -0.010001]),
    ];
    assert_rows(&linear, &rows);

    let trailing = SchedulerConfig {
        timestep_spacing: Trailing,
        ..SD
    };
    let rows = [
        (999, [2.1619227, -1.1678299], [14.648819, -14.614647]),
        (856, [1.8387780, -0.8563436], [6.743135, -6.668573]),
        (713, [1.5944010, -0.6337658], [3.653402, -3.513879]),
        (570, [1.4092715, -0.4799954], [2.284923, -2.054477]),
        (428, [1.2704740, -0.3787670], [1.621351, -1.276236]),
        (285, [1.1663808, -0.3200966], [1.274440, -0.790061]),
        (142, [1.0912770, -0.4087210], [1.091741, -0.438062]),
    ];
    assert_rows(&trailing, &rows);
}

// numpy: np.round(np.arange(1000, 0, -1000 / n)).astype(np.int64) - 1, the first n elements, for every n: the sum over n
// of sum(t_i (i + 1)), times 31 before each addition, modulo 2^61 - 1.
#[test]
fn every_number_of_trailing_steps_agrees_with_numpy() {
    let config = SchedulerConfig {
        timestep_spacing: Trailing,
        ..SD
    };
    let sum = (1..=1000).fold(0_u128, |sum, n| {
        let timesteps = timesteps(&config, n).unwrap();
        let weighted: usize = timesteps.iter().zip(1..).map(|(t, i)| t * i).sum();
        (sum * 31 + weighted as u128) % ((1 << 61) - 1)
    });
    assert_eq!(sum, 2_294_107_808_996_661_065);
}

#[test]
fn impossible_runs_are_refused() {
    let train_steps = 1000;
    for steps in [0, 1001] {
        let error = schedule(&SD, steps).unwrap_err();
        assert_eq!(error, ScheduleError::Steps { steps, train_steps });
    }
    let offset = ScheduleError::Offset {
        steps: 1000,
        offset: 1,
        timestep: 1000,
        last: 999,
    };
    assert_eq!(schedule(&SD, 1000).unwrap_err(), offset);
    for beta_start in [0.0, 1.0, -0.1] {
        let config = SchedulerConfig { beta_start, ..SD };
        let betas = ScheduleError::Betas {
            start: beta_start,
            end: 0.012,
        };
        assert_eq!(schedule(&config, 8).unwrap_err(), betas);
    }
    let config = SchedulerConfig {
        beta_end: f64::NAN,
        ..SD
    };
    assert!(matches!(
        schedule(&config, 8),
        Err(ScheduleError::Betas { .. })
    ));
}
