"""A benchmark's result as a table for people, and as the Markdown table of the README."""

from typing import Any

_MARKDOWN_RATE_HZ = 44100


def format_text(result: dict[str, Any]) -> str:
    """All numbers, one section per model, below the line that names the hardware."""
    lines = [f"restorer {result['restorer']} on {machine_line(result['machine'])}"]
    for model in result["models"]:
        lines += ["", *_format_model(model, result["machine"])]
    return "\n".join(lines)


def machine_line(machine: dict[str, Any]) -> str:
    """The hardware and the versions, in one line."""
    memory = f", {machine['memory_gb']:.0f} GB" if machine["memory_gb"] else ""
    cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''}"
    torch = f", PyTorch {machine['torch']}" if machine["torch"] else ""
    return (
        f"{machine['processor']}, {cores}{memory}, {machine['system']}, Python {machine['python']}, "
        f"ONNX Runtime {machine['onnxruntime']}{torch}"
    )


def _format_model(model: dict[str, Any], machine: dict[str, Any]) -> list[str]:
    lines = [
        f"{model['name']} {model['version']} ({model['file']}): {_size(model)}",
        f"latency: {_latency(model)}",
        "measured latency: "
        + ", ".join(f"{ms:.1f} ms at {rate} Hz" for rate, ms in model["measured_latency_ms"].items()),
        f"import to first block: {model['load_seconds']:.2f} s",
        *[f"peak memory, {_minutes(run)} of stereo: {_megabytes(run)}" for run in model["memory"]],
        f"generator: {_work(model, machine)}",
        "",
        "real-time factor (time taken / duration), stereo at 44.1 kHz",
        *[f"  {_offline_name(row):<48}{row['real_time_factor']:8.3f}" for row in model["offline"]],
        *[f"  {_runtime_name(row):<48}{row['real_time_factor']:8.3f}" for row in model["runtimes"]],
        "",
        "streams on one core: time per block in ms beside the block's duration",
        "   rate  channels  block  frames a call  lasts     mean      p99    p99.9    worst  misses / blocks  "
        "real-time factor",
    ]
    for row in model["streaming"]:
        lines.append(
            f"  {row['sample_rate_hz']:5d}  {row['channels']:8d}  {row['block_samples']:5d}"
            f"  {row['frames_per_call']:13d}  {row['block_ms']:5.2f}"
            f"  {row['mean_ms']:7.3f}  {row['p99_ms']:7.3f}  {row['p999_ms']:7.3f}  {row['worst_ms']:7.3f}"
            f"  {row['misses']:6d} / {row['blocks']:<6d}  {row['real_time_factor']:16.3f}"
        )
    return lines


def format_markdown(result: dict[str, Any]) -> str:
    """The README's table: a column per model, the hardware above it."""
    models, machine = result["models"], result["machine"]
    columns = [_markdown_rows(model, machine) for model in models]
    names = list(dict.fromkeys(name for column in columns for name in column))
    lines = [
        f"Measured on {machine_line(machine)}. A real-time factor is time taken / duration of the audio, here stereo "
        "at 44.1 kHz; a miss is a block that took longer than it lasts.",
        "",
        f"| | {' | '.join(model['name'] for model in models)} |",
        f"|---|{'---|' * len(models)}",
    ]
    lines += [f"| {name} | {' | '.join(column.get(name, '') for column in columns)} |" for name in names]
    return "\n".join(lines)


def _markdown_rows(model: dict[str, Any], machine: dict[str, Any]) -> dict[str, str]:
    rows = {"Size": _size(model), "Latency": _latency(model)}
    for row in model["offline"] + model["runtimes"]:
        name = _offline_name(row) if "what" in row else _runtime_name(row)
        rows[f"Real-time factor, {name}"] = f"{row['real_time_factor']:.3f}"
    streams = [row for row in model["streaming"] if row["sample_rate_hz"] == _MARKDOWN_RATE_HZ and row["channels"] == 2]
    compared = {row["block_samples"] for row in streams if row["frames_per_call"] != model["frames_per_call"]}
    for row in streams:
        name = f"Stream, blocks of {row['block_samples']} samples ({row['block_ms']:.2f} ms)"
        times = (
            f"{row['mean_ms']:.2f} ms mean, {row['p99_ms']:.2f} p99, {row['p999_ms']:.2f} p99.9; "
            f"{row['misses']} misses in {row['blocks']} blocks; real-time factor {row['real_time_factor']:.3f}"
        )
        if row["frames_per_call"] == model["frames_per_call"]:
            rows[f"{name}, one core"] = times
        if row["block_samples"] in compared:
            rows[f"{name}, {_frames(row)} a call, one core"] = times
    rows["Import to first block"] = f"{model['load_seconds']:.2f} s"
    for run in model["memory"]:
        rows[f"Peak memory, {_minutes(run)}"] = _megabytes(run)
    rows["Generator, one thread"] = _work(model, machine)
    return rows


def _size(model: dict[str, Any]) -> str:
    return f"{model['parameters'] / 1e6:.2f} M parameters, {model['size_bytes'] / 1e6:.1f} MB"


def _latency(model: dict[str, Any]) -> str:
    layers = dict(model["latency"])
    total = layers.pop("total")
    parts = ", ".join(f"{name} {layer['samples']}" for name, layer in layers.items())
    return f"{total['samples']} samples, {total['ms']:.1f} ms ({parts})"


def _work(model: dict[str, Any], machine: dict[str, Any]) -> str:
    return (
        f"{model['multiply_adds_per_frame'] / 1e6:.1f} M multiply-adds per frame and channel, "
        f"{model['giga_multiply_adds_per_second']:.1f} G/s reached, {100 * model['share_of_peak']:.0f} % of numpy's "
        f"matrix product ({machine['peak_giga_multiply_adds_per_second']:.1f} G/s)"
    )


def _offline_name(row: dict[str, Any]) -> str:
    if row["device"] != "cpu":
        return f"{row['what']}, {row['device']}"
    return f"{row['what']}, " + ("one core" if row["threads"] == 1 else f"{row['threads']} threads")


def _runtime_name(row: dict[str, Any]) -> str:
    return f"generator alone, {row['runtime']}, {_frames(row)} a call"


def _frames(row: dict[str, Any]) -> str:
    return f"{row['frames_per_call']} frame{'s' if row['frames_per_call'] > 1 else ''}"


def _minutes(run: dict[str, Any]) -> str:
    return f"{run['minutes']:g} minute{'s' if run['minutes'] != 1 else ''}"


def _megabytes(run: dict[str, Any]) -> str:
    return f"{run['peak_mb']:.0f} MB" if run["peak_mb"] else "not told by this system"
