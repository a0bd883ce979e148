using System.CommandLine;
using System.Text;
using Causeway.Server;

namespace Causeway.Cli.Options;

/// <summary>What the virtio device is like, and for how many front ends it stays.</summary>
internal sealed class DeviceTopic : OptionTopic
{
    private readonly Option<string[]> _tag;
    private readonly Option<string[]> _requestQueues;
    private readonly Option<bool> _isPersistent;
    private readonly Option<string[]> _inFlight;
    private readonly Option<string[]> _threadPoolSize;
    private readonly Option<string[]> _poll;

    public DeviceTopic()
    {
        _tag = Value("--tag", "TAG", "offer TAG (1 to 36 bytes) as the mount tag, for front ends that ask the daemon");
        _requestQueues = Value(
            "--num-request-queues", "N", "announce N request queues with the tag, 1 to 64 [one per CPU, at most 8]");
        _threadPoolSize = Value(
            "--thread-pool-size", "N", "accepted for virtiofsd's sake: every queue has threads of its own, as many as it needs");
        _poll = Value(
            "--poll", "WHEN", "look at a queue for up to 50 us before sleeping, where that has paid: auto, or never: off [auto]");
        _isPersistent = Switch(
            "--persistent", "when the front end disconnects, wait for the next one instead of ending");
        _inFlight = Value(
            "--max-in-flight", "SIZE", "how many bytes of requests the guest may have in work at a time, 16M to 64G [256M]");
    }

    /// <summary>Reads the topic.</summary>
    public DeviceOptions Read(ParsedOptions parsed)
    {
        _ = parsed.Number(_threadPoolSize, 0, uint.MaxValue);
        var options = new DeviceOptions
        {
            Tag = ReadTag(parsed),
            IsPersistent = parsed.IsOn(_isPersistent),
            MaxInFlightBytes = ReadInFlight(parsed),
            Polls = parsed.OneOf(_poll, true, ("auto", true), ("off", false)),
        };
        return parsed.Number(_requestQueues, 1, VirtioFsServerOptions.MaxRequestQueues) is { } queues
            ? options with { RequestQueues = (int)queues }
            : options;
    }

    /// <summary>Whether it is said how much may be in work.</summary>
    public bool SaysInFlight(ParsedOptions parsed) => parsed.IsGiven(_inFlight);

    /// <summary>Whether it is said how many queues there are.</summary>
    public bool SaysQueues(ParsedOptions parsed) => parsed.IsGiven(_requestQueues);

    private long ReadInFlight(ParsedOptions parsed)
    {
        if (parsed.Last(_inFlight) is not { } text)
        {
            return VirtioFsServerOptions.DefaultInFlightBytes;
        }

        return ParsedOptions.TryReadSize(text, out ulong size)
            && size is >= (ulong)VirtioFsServerOptions.LeastInFlightBytes and <= (ulong)VirtioFsServerOptions.MostInFlightBytes
            ? (long)size
            : throw new UsageException($"'--max-in-flight' takes a size from 16M to 64G, for example 256M, not '{text}'");
    }

    private string? ReadTag(ParsedOptions parsed)
    {
        string? tag = parsed.Last(_tag);
        if (tag is null)
        {
            return null;
        }

        int length = Encoding.UTF8.GetByteCount(tag);
        return length is not 0 && length <= VirtioFsServerOptions.MaxTagLength && !tag.AsSpan().ContainsAny('\n', '\0')
            ? tag
            : throw new UsageException(
                $"'--tag' takes 1 to {VirtioFsServerOptions.MaxTagLength} bytes without line breaks; this one has {length} bytes");
    }
}

/// <summary>What the virtio device is like.</summary>
internal sealed record DeviceOptions
{
    /// <summary>The tag in the device's config space; null leaves it to the front end.</summary>
    public string? Tag { get; init; }

    /// <summary>How many request queues the config space announces. Default: one per processor, at most 8.</summary>
    public int RequestQueues { get; init; } = VirtioFsServerOptions.DefaultRequestQueues(Environment.ProcessorCount);

    /// <summary>Whether to wait for the next front end when one disconnects. Default: end, as virtiofsd does.</summary>
    public bool IsPersistent { get; init; }

    /// <summary>Most bytes of requests in work. Default 256 MiB.</summary>
    public long MaxInFlightBytes { get; init; } = VirtioFsServerOptions.DefaultInFlightBytes;

    /// <summary>Whether threads look at their queues for a while before they sleep. Default: yes.</summary>
    public bool Polls { get; init; } = true;

    /// <summary>Size of the DAX window in bytes. Default zero: none.</summary>
    public ulong DaxWindowSize { get; init; }
}
