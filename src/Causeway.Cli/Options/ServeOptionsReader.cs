using System.CommandLine;
using System.Globalization;
using System.Text;
using Causeway.Passthrough;
using Microsoft.Extensions.Logging;

namespace Causeway.Cli.Options;

/// <summary>Gives the parsed options of <c>causeway serve</c> their meaning, and says what is wrong with them.</summary>
internal sealed class ServeOptionsReader(ServeSyntax syntax, ParseResult parsed)
{
    private const int MaxRequestQueues = 64;
    private const int MaxTagLength = 36;

    // A day short of what a 32-bit kernel turns into jiffies without overflow at 1000 Hz (arbitrary, long enough).
    private static readonly TimeSpan MaxLifetime = TimeSpan.FromDays(23);

    /// <summary>Reads the options.</summary>
    /// <exception cref="UsageException">A value is wrong, missing, or asks for something that does not exist yet.</exception>
    public ServeOptions Read()
    {
        RefuseWhatIsMissing();
        string? socket = Last(syntax.SocketPath) ?? Last(syntax.Socket);
        int? descriptor = Number(syntax.ListeningDescriptor, 0, int.MaxValue) is { } number ? (int)number : null;
        if (socket is null == descriptor is null)
        {
            throw new UsageException(socket is null
                ? "where to listen? Give '--socket-path PATH' (or '--fd N')"
                : "'--fd' and '--socket-path' exclude each other; leave one out");
        }

        var options = new ServeOptions
        {
            Passthrough = ReadPassthrough(),
            SocketPath = socket,
            ListeningDescriptor = descriptor,
            Tag = ReadTag(),
            IsPersistent = parsed.GetValue(syntax.Persistent),
            DescriptorLimit = Number(syntax.DescriptorLimit, 0, uint.MaxValue),
            LogLevel = ReadLogLevel(),
        };
        return Number(syntax.RequestQueues, 1, MaxRequestQueues) is { } queues
            ? options with { RequestQueues = (int)queues }
            : options;
    }

    private PassthroughOptions ReadPassthrough()
    {
        string directory = Last(syntax.SharedDirectory)
            ?? throw new UsageException("what to share? Give '--shared-dir DIR'");
        return new PassthroughOptions
        {
            SharedDirectory = directory,
            Cache = OneOf(
                syntax.Cache,
                CacheMode.Auto,
                ("never", CacheMode.Never),
                ("metadata", CacheMode.Metadata),
                ("auto", CacheMode.Auto),
                ("always", CacheMode.Always)),
            Writeback = parsed.GetValue(syntax.Writeback),
            AttributeLifetime = Lifetime(syntax.AttributeTimeout),
            EntryLifetime = Lifetime(syntax.EntryTimeout),
            NegativeLifetime = Lifetime(syntax.NegativeTimeout),
            ReadOnly = parsed.GetValue(syntax.ReadOnly),
            Xattr = parsed.GetValue(syntax.Xattr),
            AllowDirectIo = parsed.GetValue(syntax.AllowDirectIo),
            AllowMmap = parsed.GetValue(syntax.AllowMmap),
            ReadDirPlus = !parsed.GetValue(syntax.NoReadDirPlus),
            AnnounceSubmounts = IsOn(syntax.AnnounceSubmounts, syntax.NoAnnounceSubmounts, byDefault: true),
            KillPrivV2 = IsOn(syntax.KillPrivV2, syntax.NoKillPrivV2, byDefault: false),
            PreserveNoatime = parsed.GetValue(syntax.PreserveNoatime),
            FileHandles = OneOf(
                syntax.InodeFileHandles,
                InodeFileHandles.Prefer,
                ("never", InodeFileHandles.Never),
                ("prefer", InodeFileHandles.Prefer),
                ("fallback", InodeFileHandles.Prefer),
                ("mandatory", InodeFileHandles.Mandatory)),
        };
    }

    private void RefuseWhatIsMissing()
    {
        foreach (Option<bool> option in syntax.NotYetSwitches.Where(parsed.GetValue))
        {
            throw new UsageException($"'{option.Name}' is not provided yet; leave it out");
        }

        foreach ((Option<string[]> option, string? harmless) in syntax.NotYet)
        {
            if (parsed.GetResult(option) is null || Last(option) == harmless)
            {
                continue;
            }

            throw new UsageException(harmless is null
                ? $"'{option.Name}' is not provided yet; leave it out"
                : $"'{option.Name}' is not provided yet; leave it out or say '{option.Name}={harmless}'");
        }

        string? sandbox = Last(syntax.Sandbox);
        if (!string.Equals(sandbox, "none", StringComparison.OrdinalIgnoreCase))
        {
            throw new UsageException(sandbox is null or "namespace" or "chroot"
                ? "the sandbox is not provided yet; say '--sandbox none' to serve without one"
                : $"'--sandbox {sandbox}' is not a mode; today there is only '--sandbox none'");
        }
    }

    private string? ReadTag()
    {
        string? tag = Last(syntax.Tag);
        if (tag is null)
        {
            return null;
        }

        int length = Encoding.UTF8.GetByteCount(tag);
        if (length is 0 or > MaxTagLength || tag.AsSpan().ContainsAny('\n', '\0'))
        {
            throw new UsageException(
                $"'--tag' takes 1 to {MaxTagLength} bytes without line breaks; this one has {length} bytes");
        }

        return tag;
    }

    private LogLevel ReadLogLevel() => OneOf(
        syntax.LogLevel,
        parsed.GetValue(syntax.Debug) ? LogLevel.Debug : LogLevel.Information,
        ("error", LogLevel.Error),
        ("warn", LogLevel.Warning),
        ("info", LogLevel.Information),
        ("debug", LogLevel.Debug),
        ("trace", LogLevel.Trace),
        ("off", LogLevel.None));

    // Of a pair of opposite switches, the one given last wins.
    private bool IsOn(Option<bool> on, Option<bool> off, bool byDefault)
    {
        int lastOn = LastPosition(on);
        int lastOff = LastPosition(off);
        return lastOn == lastOff ? byDefault : lastOn > lastOff;
    }

    private int LastPosition(Option<bool> option)
    {
        for (int i = parsed.Tokens.Count - 1; i >= 0; i--)
        {
            if (parsed.Tokens[i].Value == option.Name)
            {
                return i;
            }
        }

        return -1;
    }

    private string? Last(Option<string[]> option) => parsed.GetValue(option) is { Length: > 0 } values ? values[^1] : null;

    private ulong? Number(Option<string[]> option, ulong least, ulong most)
    {
        string? text = Last(option);
        if (text is null)
        {
            return null;
        }

        return ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number)
            && number >= least && number <= most
            ? number
            : throw new UsageException($"'{option.Name}' takes a number from {least} to {most}, not '{text}'");
    }

    private TimeSpan? Lifetime(Option<string[]> option)
    {
        string? text = Last(option);
        if (text is null)
        {
            return null;
        }

        return decimal.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal seconds)
            && seconds <= (decimal)MaxLifetime.TotalSeconds
            ? TimeSpan.FromTicks((long)(seconds * TimeSpan.TicksPerSecond))
            : throw new UsageException(
                $"'{option.Name}' takes seconds from 0 to {MaxLifetime.TotalSeconds:F0}, for example 0.5, not '{text}'");
    }

    private T OneOf<T>(Option<string[]> option, T byDefault, params ReadOnlySpan<(string Name, T Value)> choices)
    {
        string? text = Last(option);
        if (text is null)
        {
            return byDefault;
        }

        var names = new List<string>();
        foreach ((string name, T value) in choices)
        {
            if (string.Equals(name, text, StringComparison.OrdinalIgnoreCase))
            {
                return value;
            }

            names.Add(name);
        }

        throw new UsageException($"'{option.Name}' takes one of {string.Join(", ", names)}, not '{text}'");
    }
}
