//! Instruction sets are chosen among those there are, and arguments that do not fit are refused, never run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pponnx_kernels::{ConvSpec, ConvTransposeSpec, Input, Isa, KernelError, Kernels, MatMulSpec, Output, Weights};

fn conv() -> ConvSpec {
    ConvSpec {
        batch: 1,
        in_channels: 2,
        input: vec![5, 5],
        out_channels: 4,
        kernel: vec![3, 3],
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads_before: vec![0, 0],
        pads_after: vec![0, 0],
        groups: 1,
    }
}

fn transpose() -> ConvTransposeSpec {
    ConvTransposeSpec {
        batch: 1,
        in_channels: 2,
        input: vec![3],
        out_channels: 4,
        kernel: vec![2],
        strides: vec![2],
        dilations: vec![1],
        pads_before: vec![0],
        pads_after: vec![0],
        output_padding: vec![0],
        groups: 1,
    }
}

#[test]
fn detection_picks_an_available_instruction_set() {
    let available = Kernels::available();
    assert_eq!(available.first(), Some(&Isa::Portable));
    assert_eq!(available.last(), Some(&Kernels::detect().isa()));
    for isa in Isa::ALL {
        assert_eq!(Kernels::with_isa(isa).map(|k| k.isa()), available.contains(&isa).then_some(isa));
        assert_eq!(Isa::from_name(isa.name()), Some(isa));
    }
    assert_eq!(Isa::from_name("AVX2"), None);
    assert_eq!(Kernels::detect().threads(), 1);
    assert!(Kernels::detect().with_threads(0).unwrap().threads() >= 1);
    assert_eq!(Kernels::detect().with_threads(7).unwrap().threads(), 7);
    assert_eq!(
        Kernels::detect().with_threads(1_000_000).err(),
        Some(KernelError::Threads { threads: 1_000_000, most: Kernels::MOST_THREADS })
    );
}

#[test]
fn invalid_convolutions_are_refused() {
    let huge = 1usize << 40;
    let cases: Vec<(ConvSpec, KernelError)> = vec![
        (ConvSpec { input: vec![], ..conv() }, KernelError::Axes { count: 0 }),
        (ConvSpec { input: vec![2; 4], ..conv() }, KernelError::Axes { count: 4 }),
        (ConvSpec { strides: vec![1], ..conv() }, KernelError::Entries { what: "strides", expected: 2, found: 1 }),
        (ConvSpec { strides: vec![1, 0], ..conv() }, KernelError::Zero { what: "strides" }),
        (ConvSpec { kernel: vec![0, 3], ..conv() }, KernelError::Zero { what: "kernel" }),
        (ConvSpec { groups: 0, ..conv() }, KernelError::Zero { what: "groups" }),
        (ConvSpec { groups: 4, ..conv() }, KernelError::Groups { in_channels: 2, out_channels: 4, groups: 4 }),
        (ConvSpec { dilations: vec![1, 3], ..conv() }, KernelError::Window { axis: 1, window: 7, padded: 5 }),
        (ConvSpec { pads_before: vec![huge, 0], ..conv() }, KernelError::TooLarge { what: "pads_before" }),
        (ConvSpec { input: vec![1 << 30; 2], ..conv() }, KernelError::TooLarge { what: "input" }),
        (ConvSpec { out_channels: 1 << 31, ..conv() }, KernelError::TooLarge { what: "channels" }),
    ];
    for (spec, error) in cases {
        assert_eq!(spec.output(), Err(error.clone()), "{spec:?}");
        assert_eq!(Kernels::detect().pack_conv(spec, Weights::I16(&[])).err(), Some(error));
    }
}

#[test]
fn invalid_transposed_convolutions_are_refused() {
    let cases: Vec<(ConvTransposeSpec, KernelError)> = vec![
        (
            ConvTransposeSpec { output_padding: vec![], ..transpose() },
            KernelError::Entries { what: "output_padding", expected: 1, found: 0 },
        ),
        (ConvTransposeSpec { pads_after: vec![6], ..transpose() }, KernelError::Crop { axis: 0, cut: 6, full: 6 }),
        (ConvTransposeSpec { strides: vec![0], ..transpose() }, KernelError::Zero { what: "strides" }),
        (
            ConvTransposeSpec { groups: 3, ..transpose() },
            KernelError::Groups { in_channels: 2, out_channels: 4, groups: 3 },
        ),
    ];
    for (spec, error) in cases {
        assert_eq!(spec.output(), Err(error.clone()), "{spec:?}");
        assert_eq!(Kernels::detect().pack_conv_transpose(spec, Weights::I32(&[])).err(), Some(error));
    }
}

#[test]
fn slices_of_wrong_length_are_refused() {
    let kernels = Kernels::detect();
    let length = |what, expected, found| KernelError::Length { what, expected, found };

    assert_eq!(kernels.pack_conv(conv(), Weights::I16(&[1; 142])).err(), Some(length("weights", 72, 71)));
    let packed = kernels.pack_conv(conv(), Weights::I16(&[1; 144])).unwrap();
    let mut y = [0u32; 36];
    assert_eq!(
        kernels.conv(&packed, 32, Input::Words(&[0u32; 49]), Output::Words(&mut y)),
        Err(length("input", 50, 49))
    );
    assert_eq!(
        kernels.conv(&packed, 32, Input::Words(&[0u32; 50]), Output::Words(&mut y[1..])),
        Err(length("output", 36, 35))
    );
    assert_eq!(kernels.conv(&packed, 32, Input::Words(&[0u32; 50]), Output::Words(&mut y)), Ok(()));

    let packed = kernels.pack_conv_transpose(transpose(), Weights::I32(&[1; 64])).unwrap();
    assert_eq!(
        kernels.conv_transpose(&packed, 64, Input::Words(&[0u64; 7]), Output::Words(&mut [0; 24])),
        Err(length("input", 6, 7))
    );

    let product = MatMulSpec { batch: 2, broadcast: false, rows: 3, n: 4, k: 5 };
    assert_eq!(product.lens(), Ok([30, 40, 24]));
    assert_eq!(kernels.pack_matmul(product.clone(), Weights::I16(&[1; 40])).err(), Some(length("weights", 40, 20)));
    let packed = kernels.pack_matmul(product.clone(), Weights::I16(&[1; 80])).unwrap();
    assert_eq!(
        kernels.matmul(&packed, 64, Input::Words(&[0u64; 30]), Output::Words(&mut [0; 25])),
        Err(length("output", 24, 25))
    );
    let none = MatMulSpec { k: 0, ..product };
    assert_eq!(none.lens(), Err(KernelError::Zero { what: "matrix" }));

    assert_eq!(kernels.encode(&[1.0], 0, &mut []), Err(length("encode output", 1, 0)));
    assert_eq!(kernels.encode(&[1.0], 127, &mut [0]), Err(KernelError::Exponent { exponent: 127 }));
    assert_eq!(kernels.embed(&[1], &mut [0u32; 2]), Err(length("embed output", 1, 2)));
    assert_eq!(kernels.add_assign(&mut [1u32], &[]), Err(length("addend", 1, 0)));
    assert_eq!(kernels.sub_assign(&mut [1u64], &[1, 2]), Err(length("subtrahend", 1, 2)));
    assert_eq!(kernels.lift(&[1u64], 52, &mut []), Err(length("lift output", 1, 0)));
    assert_eq!(kernels.lift(&[1u32], 33, &mut [0]), Err(KernelError::Width { k: 33, bits: 32 }));
    assert_eq!(kernels.dot_p61_i32(&[1], &[]), Err(length("dot operand", 1, 0)));
    assert_eq!(kernels.dot_p61_i64(&[], &[1]), Err(length("dot operand", 0, 1)));
    assert_eq!(kernels.decode_row(&[1], 1.0, 0.0, &mut []), Err(length("decode output", 1, 0)));
}

/// Windows that reach far beyond the data cost no memory for the zeros in between.
#[test]
fn padding_without_end_needs_no_memory() {
    let far = 1_000_000_000;
    let spec = ConvSpec {
        in_channels: 1,
        input: vec![1],
        out_channels: 1,
        kernel: vec![2],
        strides: vec![1],
        dilations: vec![far],
        pads_before: vec![far],
        pads_after: vec![0],
        ..conv()
    };
    let packed = Kernels::detect().pack_conv(spec, Weights::I16(&[3, 0, 5, 0])).unwrap();
    let mut y = [0u32];
    Kernels::detect().conv(&packed, 32, Input::Words(&[7]), Output::Words(&mut y)).unwrap();
    assert_eq!(y, [35]);
}
