using System.CommandLine;
using Causeway.Cli;
using Causeway.Cli.Options;
using Causeway.Passthrough;
using Microsoft.Extensions.Logging;

namespace Causeway.Tests.Cli;

public sealed class ServeOptionsTests
{
    private const string Least = "--shared-dir /srv --socket-path /run/x.sock --sandbox none";

    [Fact]
    public void Defaults_are_those_of_virtiofsd()
    {
        ServeOptions options = Read(Least);

        Assert.Equal("/srv", options.Passthrough.SharedDirectory);
        Assert.Equal(["/run/x.sock"], options.Socket.Paths);
        Assert.Equal(1, options.Socket.GuestCount);
        Assert.Equal(CacheMode.Auto, options.Passthrough.Cache);
        Assert.Equal(InodeFileHandles.Prefer, options.Passthrough.FileHandles);
        Assert.True(options.Passthrough.AnnounceSubmounts);
        Assert.True(options.Passthrough.ReadDirPlus);
        Assert.False(options.Passthrough.Writeback);
        Assert.False(options.Passthrough.Xattr);
        Assert.False(options.Passthrough.ReadOnly);
        Assert.Null(options.Passthrough.KillPrivV2);
        Assert.False(options.Device.IsPersistent);
        Assert.Null(options.Device.Tag);
        Assert.Null(options.Process.DescriptorLimit);
        Assert.Equal(LogLevel.Information, options.Process.LogLevel);
    }

    [Theory]
    [InlineData("--cache=never", CacheMode.Never)]
    [InlineData("--cache always", CacheMode.Always)]
    [InlineData("--cache METADATA", CacheMode.Metadata)]
    [InlineData("--cache never --cache auto", CacheMode.Auto)]
    [InlineData("-o cache=none", CacheMode.Never)]
    [InlineData("-o writeback,cache=always", CacheMode.Always)]
    public void The_last_cache_mode_counts_in_any_form(string arguments, CacheMode mode) =>
        Assert.Equal(mode, Read($"{Least} {arguments}").Passthrough.Cache);

    [Theory]
    [InlineData("--announce-submounts --no-announce-submounts", false)]
    [InlineData("--no-announce-submounts --announce-submounts", true)]
    [InlineData("--no-announce-submounts -o announce_submounts", false)]
    [InlineData("", true)]
    public void Of_a_pair_of_opposite_switches_the_last_one_counts(string arguments, bool isOn) =>
        Assert.Equal(isOn, Read($"{Least} {arguments}").Passthrough.AnnounceSubmounts);

    [Theory]
    [InlineData("", null)]
    [InlineData("--xattr", null)]
    [InlineData("--killpriv-v2", true)]
    [InlineData("--no-killpriv-v2", false)]
    [InlineData("--killpriv-v2 --no-killpriv-v2", false)]
    [InlineData("--no-killpriv-v2 --killpriv-v2", true)]
    [InlineData("--no-killpriv-v2 -o killpriv_v2", true)]
    [InlineData("-o no_killpriv_v2", false)]
    public void Killpriv_is_left_open_unless_told(string arguments, bool? isOn) =>
        Assert.Equal(isOn, Read($"{Least} {arguments}").Passthrough.KillPrivV2);

    [Theory]
    [InlineData("", null, 600)]
    [InlineData("--no-remote-locks", false, 600)]
    [InlineData("-o no_posix_lock,no_flock", false, 600)]
    [InlineData("--cache always --remote-locks --lock-wait 0", true, 0)]
    [InlineData("--no-remote-locks --remote-locks --lock-wait=5", true, 5)]
    public void Locks_are_remote_by_cache_mode_unless_told(string arguments, bool? isRemote, int wait)
    {
        PassthroughOptions options = Read($"{Least} {arguments}").Passthrough;

        Assert.Equal(isRemote, options.RemoteLocks);
        Assert.Equal(TimeSpan.FromSeconds(wait), options.LockWaitLimit);
    }

    [Theory]
    [InlineData("", 1024)]
    [InlineData("--spare-files 0", 0)]
    [InlineData("--spare-files=7", 7)]
    public void Files_stay_open_as_many_as_told(string arguments, int files) =>
        Assert.Equal(files, Read($"{Least} {arguments}").Passthrough.SpareFiles);

    [Theory]
    [InlineData("", 128)]
    [InlineData("--queued-reads 0", 0)]
    [InlineData("--queued-reads=4096", 4096)]
    public void Reads_wait_for_the_disk_as_many_as_told(string arguments, int reads) =>
        Assert.Equal(reads, Read($"{Least} {arguments}").Passthrough.QueuedReads);

    [Theory]
    [InlineData("", HostWatching.Off, false)]
    [InlineData("--version-table", HostWatching.Auto, false)]
    [InlineData("--version-table=watched --notify fanotify", HostWatching.Fanotify, false)]
    [InlineData("--version-table=exclusive", HostWatching.Off, false)]
    [InlineData("--version-table=strict", HostWatching.Off, true)]
    [InlineData("--version-table=strict --notify auto", HostWatching.Auto, true)]
    public void A_version_table_says_what_becomes_of_the_host(string arguments, HostWatching watching, bool takesDelegations)
    {
        PassthroughOptions options = Read($"{Least} {arguments}").Passthrough;

        options.Validate();
        Assert.Equal((watching, takesDelegations), (options.HostWatching, options.TakesDelegations));
        Assert.Equal(arguments.Length > 0, options.VersionTable is not null);
    }

    [Theory]
    [InlineData("", 256 << 20)]
    [InlineData("--max-in-flight 16777216", 16 << 20)]
    [InlineData("--max-in-flight=20480k", 20 << 20)]
    [InlineData("--max-in-flight 1G", 1 << 30)]
    public void Sizes_are_in_bytes_or_in_units(string arguments, long bytes) =>
        Assert.Equal(bytes, Read($"{Least} {arguments}").Device.MaxInFlightBytes);

    [Theory]
    [InlineData("48M", "", 1, 16 << 20)]
    [InlineData("64M", "", 1, 16 << 20)]
    [InlineData("256M", "--max-guests 4", 4, 60 << 20)]
    [InlineData("4G", "--max-in-flight 1G", 1, 1 << 30)]
    public void What_may_grow_fits_into_the_memory_there_is(string size, string arguments, int guests, long inFlight)
    {
        ServeOptions options = Read($"{Least} --memory-max {size} {arguments}");

        long all = options.Process.Memory!.Size;
        PassthroughOptions share = options.Passthrough;
        share.Validate();
        Assert.Equal(inFlight, options.Device.MaxInFlightBytes);
        long grows = inFlight + (guests * (
            (share.MaxNodes * 112L) + (share.DescriptorCeiling!.Value * 1536L) + (share.MaxLockWaits * 65536L)
            + (share.MaxWatches * 1024L) + (share.MaxLocks * 256L) + share.MaxLeftoverBytes));
        Assert.InRange(grows, (all / 4) - (16 << 20), all - (16 << 20));
    }

    [Theory]
    [InlineData("", null, null)]
    [InlineData("--cpu-affinity 0", 1, false)]
    [InlineData("--cpu-affinity 0-2", 3, true)]
    [InlineData("--cpu-affinity 0-20", 8, true)]
    [InlineData("--cpu-affinity 0-2 --num-request-queues 5", 5, true)]
    public void Queues_and_polling_follow_the_processors_there_are(string arguments, int? queues, bool? polls)
    {
        DeviceOptions device = Read($"{Least} {arguments}").Device;

        Assert.Equal(queues ?? Math.Min(Environment.ProcessorCount, 8), device.RequestQueues);
        Assert.Equal(polls ?? true, device.Polls);
    }

    [Fact]
    public void Timeouts_take_fractions_of_seconds()
    {
        PassthroughOptions options =
            Read($"{Least} --attr-timeout 0.25 --entry-timeout=2 --negative-timeout 1.5").Passthrough;

        Assert.Equal(TimeSpan.FromMilliseconds(250), options.AttributeLifetime);
        Assert.Equal(TimeSpan.FromSeconds(2), options.EntryLifetime);
        Assert.Equal(TimeSpan.FromSeconds(1.5), options.NegativeLifetime);
    }

    [Fact]
    public void A_source_in_the_legacy_form_may_contain_equals_signs_and_doubled_commas()
    {
        ServeOptions options = Read("-o source=/srv/a=b,,c --socket-path /run/x.sock --sandbox none");

        Assert.Equal("/srv/a=b,c", options.Passthrough.SharedDirectory);
    }

    [Theory]
    // Kata Containers, Rust runtime: the mode stands in a word of its own.
    [InlineData("--socket-path S --shared-dir D --cache auto --sandbox none --seccomp none --inode-file-handles never")]
    [InlineData("--socket-path S --shared-dir D --sandbox none --posix-acl=never --security-label never")]
    public void Command_lines_of_launchers_are_understood(string arguments) => Read(arguments);

    [Theory]
    [InlineData("--shared-dir D --socket-path S --sandbox jail", "--sandbox")]
    [InlineData("--socket-path S --sandbox none", "--shared-dir")]
    [InlineData("--shared-dir D --sandbox none", "--socket-path")]
    [InlineData(Least + " --fd 3", "--fd")]
    [InlineData(Least + " --cache sometimes", "never, metadata, auto, always")]
    [InlineData(Least + " --attr-timeout soon", "--attr-timeout")]
    [InlineData(Least + " --attr-timeout -1", "--attr-timeout")]
    [InlineData(Least + " --num-request-queues 65", "--num-request-queues")]
    [InlineData(Least + " --max-in-flight 15M", "16M to 64G")]
    [InlineData(Least + " --exclusive --dax=3M", "power of two from 2M to 64G")]
    [InlineData(Least + " --exclusive --dax=1M", "power of two from 2M to 64G")]
    [InlineData(Least + " --exclusive --dax=128G", "power of two from 2M to 64G")]
    [InlineData(Least + " --exclusive --dax=x", "--dax")]
    [InlineData(Least + " --dax", "--exclusive")]
    [InlineData(Least + " --max-in-flight 65G", "16M to 64G")]
    [InlineData(Least + " --max-in-flight 99999999999999999999G", "16M to 64G")]
    [InlineData(Least + " --max-in-flight much", "--max-in-flight")]
    [InlineData(Least + " --cpu-affinity x", "0,2-5 or 0-6:2")]
    [InlineData(Least + " --cpu-affinity 3-1", "--cpu-affinity")]
    [InlineData(Least + " --memory-max 47M", "48M or more")]
    [InlineData(Least + " --memory-max lots", "--memory-max")]
    [InlineData(Least + " --memory-max 64M --max-in-flight 48M", "32 MiB more than '--max-in-flight', which is 48M")]
    [InlineData(Least + " --tag 0123456789012345678901234567890123456", "36")]
    [InlineData(Least + " --thread-pool-size many", "--thread-pool-size")]
    [InlineData(Least + " --seccomp maybe", "--seccomp")]
    [InlineData(Least + " -o posix_lock", "posix_lock")]
    [InlineData(Least + " -o cache=never", "cache=never")]
    [InlineData(Least + " -o", "-o")]
    [InlineData(Least + " --version-table --notify=off", "--version-table=exclusive")]
    [InlineData(Least + " --notify=off --version-table=watched", "--notify=off")]
    [InlineData(Least + " --no-such-option", "--no-such-option")]
    public void A_wrong_command_line_is_refused_by_naming_what_is_wrong(string arguments, string named)
    {
        UsageException exception = Assert.Throws<UsageException>(() => Read(arguments));

        Assert.Contains(named, exception.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', exception.Message);
    }

    private static ServeOptions Read(string arguments)
    {
        var syntax = new ServeSyntax();
        var command = new RootCommand();
        syntax.AddAllTo(command);
        string[] words = arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        ParseResult parsed = command.Parse(words);
        return parsed.Errors is [var error, ..]
            ? throw new UsageException(error.Message)
            : syntax.Read(parsed);
    }
}
