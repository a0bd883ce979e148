using System.CommandLine;
using System.Globalization;
using Causeway.Fuse;
using Causeway.Passthrough;

namespace Causeway.Cli.Options;

/// <summary>Which directory is shared, and what guests may cache and do.</summary>
internal sealed class ShareTopic : OptionTopic
{
    // A day short of what a 32-bit kernel turns into jiffies without overflow at 1000 Hz (arbitrary, long enough).
    private static readonly TimeSpan s_maxLifetime = TimeSpan.FromDays(23);

    private readonly Option<string[]> _directory;
    private readonly Option<string[]> _cache;
    private readonly Option<bool> _writeback;
    private readonly Option<string[]> _attributeTimeout;
    private readonly Option<string[]> _entryTimeout;
    private readonly Option<string[]> _negativeTimeout;
    private readonly Option<bool> _readOnly;
    private readonly Option<bool> _allowDirectIo;
    private readonly Option<bool> _allowMmap;
    private readonly Option<bool> _noReadDirPlus;
    private readonly Option<bool> _announceSubmounts;
    private readonly Option<bool> _noAnnounceSubmounts;
    private readonly Option<string[]> _fileHandles;
    private readonly Option<bool> _preserveNoatime;
    private readonly Option<string[]> _spareFiles;
    private readonly Option<string[]> _queuedReads;
    private readonly Option<string[]> _notify;
    private readonly Option<string[]> _versionTable;

    public ShareTopic()
    {
        _directory = Value("--shared-dir", "DIR", "the directory to share");
        _cache = Value("--cache", "MODE", "what the guest may cache: never, metadata, auto, always [auto]");
        _writeback = Switch("--writeback", "let the guest delay writes; only for a tree that nobody else changes");
        _attributeTimeout = Value(
            "--attr-timeout", "SECONDS", "how long the guest may trust attributes, fractions allowed [by --cache]");
        _entryTimeout = Value(
            "--entry-timeout", "SECONDS", "how long the guest may trust names, fractions allowed [by --cache]");
        _negativeTimeout = Value(
            "--negative-timeout", "SECONDS", "how long the guest may trust that a name does not exist [by --cache]");
        _readOnly = Switch("--readonly", "let the guest change nothing");
        _allowDirectIo = Switch("--allow-direct-io", "pass O_DIRECT on to the host");
        _allowMmap = Switch("--allow-mmap", "allow shared mappings of files with --cache never and metadata");
        _noReadDirPlus = Switch("--no-readdirplus", "do not send attributes together with directory entries");
        _announceSubmounts = Switch(
            "--announce-submounts", "show mount points below the shared directory as mounts of their own [on]");
        _noAnnounceSubmounts = Switch("--no-announce-submounts", "show one single file system");
        _fileHandles = Value(
            "--inode-file-handles",
            "MODE",
            "refer to files by handle instead of descriptor: never, prefer, mandatory [prefer]");
        _preserveNoatime = Switch("--preserve-noatime", "pass O_NOATIME on to the host");
        _spareFiles = Value(
            "--spare-files",
            "N",
            "how many files that the guest has only read stay open for some seconds after it has closed them; 0 for none [1024]");
        _queuedReads = Value(
            "--queued-reads",
            "N",
            "how many reads wait for the disk at the same time, by io_uring, while other requests go on; 0 for one per thread [128]");
        _notify = Value(
            "--notify",
            "MODE",
            "tell guests that ask for it of changes on the host, noticed by: fanotify, directories, inotify, auto [off]");
        _versionTable = OptionalValue(
            "--version-table",
            "HOST",
            "let guests that know of it see in shared memory what is still true; what others do on the host is: watched; or waits until "
            + "guests know: strict; or there is none: exclusive [off; watched]");
    }

    /// <summary>Reads the topic. Other topics add to the result what is theirs.</summary>
    public PassthroughOptions Read(ParsedOptions parsed)
    {
        string directory = parsed.Last(_directory)
            ?? throw new UsageException("what to share? Give '--shared-dir DIR'");
        if (string.Equals(parsed.Last(_fileHandles), "fallback", StringComparison.OrdinalIgnoreCase))
        {
            parsed.Warn("'--inode-file-handles=fallback' is deprecated; say '--inode-file-handles=prefer' instead");
        }

        bool hasTable = parsed.IsGiven(_versionTable);
        HostPromise promise = hasTable
            ? parsed.OneOf(
                _versionTable,
                HostPromise.Watched,
                ("watched", HostPromise.Watched),
                ("strict", HostPromise.Strict),
                ("exclusive", HostPromise.Exclusive))
            : HostPromise.Exclusive;
        bool isWatched = promise == HostPromise.Watched;
        HostWatching watching = parsed.OneOf(
            _notify,
            isWatched ? HostWatching.Auto : HostWatching.Off,
            ("off", HostWatching.Off),
            ("auto", HostWatching.Auto),
            ("fanotify", HostWatching.Fanotify),
            ("directories", HostWatching.Directories),
            ("inotify", HostWatching.Inotify));
        if (isWatched && watching == HostWatching.Off)
        {
            throw new UsageException(
                "'--notify=off' leaves nobody to watch the host for '--version-table'; leave it away, or say "
                + "'--version-table=exclusive' if only guests change the directory");
        }

        return new PassthroughOptions
        {
            SharedDirectory = directory,
            Cache = parsed.OneOf(
                _cache,
                CacheMode.Auto,
                ("never", CacheMode.Never),
                ("metadata", CacheMode.Metadata),
                ("auto", CacheMode.Auto),
                ("always", CacheMode.Always)),
            Writeback = parsed.IsOn(_writeback),
            AttributeLifetime = Lifetime(parsed, _attributeTimeout),
            EntryLifetime = Lifetime(parsed, _entryTimeout),
            NegativeLifetime = Lifetime(parsed, _negativeTimeout),
            ReadOnly = parsed.IsOn(_readOnly),
            AllowDirectIo = parsed.IsOn(_allowDirectIo),
            AllowMmap = parsed.IsOn(_allowMmap),
            ReadDirPlus = !parsed.IsOn(_noReadDirPlus),
            AnnounceSubmounts = parsed.IsOn(_announceSubmounts, _noAnnounceSubmounts, byDefault: true),
            PreserveNoatime = parsed.IsOn(_preserveNoatime),
            SpareFiles = (int)(parsed.Number(_spareFiles, 0, PassthroughOptions.MostSpareFiles) ?? PassthroughOptions.DefaultSpareFiles),
            QueuedReads = (int)(parsed.Number(_queuedReads, 0, PassthroughOptions.MostQueuedReads) ?? PassthroughOptions.DefaultQueuedReads),
            VersionTable = hasTable ? VersionTableLayout.Default : null,
            TakesDelegations = promise == HostPromise.Strict,
            HostWatching = watching,
            FileHandles = parsed.OneOf(
                _fileHandles,
                InodeFileHandles.Prefer,
                ("never", InodeFileHandles.Never),
                ("prefer", InodeFileHandles.Prefer),
                ("fallback", InodeFileHandles.Prefer),
                ("mandatory", InodeFileHandles.Mandatory)),
        };
    }

    // What the version table promises of changes by processes of the host.
    private enum HostPromise
    {
        Watched,
        Strict,
        Exclusive,
    }

    private static TimeSpan? Lifetime(ParsedOptions parsed, Option<string[]> option)
    {
        string? text = parsed.Last(option);
        if (text is null)
        {
            return null;
        }

        return decimal.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal seconds)
            && seconds <= (decimal)s_maxLifetime.TotalSeconds
            ? TimeSpan.FromTicks((long)(seconds * TimeSpan.TicksPerSecond))
            : throw new UsageException(
                $"'{option.Name}' takes seconds from 0 to {s_maxLifetime.TotalSeconds:F0}, for example 0.5, not '{text}'");
    }
}
