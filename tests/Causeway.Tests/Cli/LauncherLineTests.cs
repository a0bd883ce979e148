using System.CommandLine;
using Causeway.Cli;
using Causeway.Cli.Logs;
using Causeway.Cli.Options;
using Causeway.Passthrough;
using Microsoft.Extensions.Logging;

namespace Causeway.Tests.Cli;

/// <summary>What the command lines of launchers mean, and every item of the legacy form.</summary>
public sealed class LauncherLineTests
{
    private const string Least = "--shared-dir D --socket-path S --sandbox none";

    [Theory]
    // Kata Containers, Go runtime (virtiofsd.go) with the usual extra arguments in both forms.
    [InlineData(
        "--syslog --cache=auto --shared-dir=/run/kata --fd=3 --thread-pool-size=1 --announce-submounts",
        "dir=/run/kata fd=3 syslog")]
    [InlineData(
        "--syslog --cache=never --shared-dir=/run/kata --fd=3 --inode-file-handles=mandatory -o announce_submounts",
        "dir=/run/kata fd=3 cache=Never handles=Mandatory syslog warnings=1")]
    // Kata Containers, Rust runtime (share_virtio_fs_standalone.rs): the mode stands in a word of its own.
    [InlineData(
        "--socket-path /run/s --shared-dir /run/d --cache always --sandbox none --seccomp none --inode-file-handles never --xattr",
        "dir=/run/d socket=/run/s cache=Always handles=Never xattr")]
    // libvirt (qemu_virtiofs.c), daemons that know long options.
    [InlineData("--fd=33 --shared-dir /srv", "dir=/srv fd=33")]
    [InlineData(
        "--fd=33 --shared-dir /srv --cache never --xattr --thread-pool-size=16 --rlimit-nofile=4096 --log-level debug",
        "dir=/srv fd=33 cache=Never xattr limit=4096 level=Debug")]
    // libvirt, others; the first as seen with 9.0.0.
    [InlineData(
        "--fd=33 -o source=/srv,cache=always,xattr,no_flock,no_posix_lock",
        "dir=/srv fd=33 cache=Always xattr warnings=1")]
    [InlineData(
        "--fd=33 -o source=/srv/a,,b,cache=none,no_xattr --thread-pool-size=0 -d",
        "dir=/srv/a,b fd=33 cache=Never level=Debug warnings=2")]
    // podman machine, Cloud Hypervisor's and crosvm-like scripts.
    [InlineData("--fd 4 --shared-dir /Users --cache never", "dir=/Users fd=4 cache=Never")]
    [InlineData(
        "--log-level error --socket-path=/tmp/virtiofs --shared-dir=/tmp/shared --cache=never --thread-pool-size=4",
        "dir=/tmp/shared socket=/tmp/virtiofs cache=Never level=Error")]
    [InlineData(
        "--socket-path=/tmp/vfs --tag root --shared-dir / --cache auto --writeback --allow-mmap --no-readdirplus",
        "dir=/ socket=/tmp/vfs tag=root writeback mmap no-plus")]
    // The C virtiofsd's documents.
    [InlineData(
        "-f -d --socket-path=/var/run/vm001-vhost-fs.sock -o source=/var/lib/fs/vm001 -o cache=always,no_posix_lock --thread-pool-size=64",
        "dir=/var/lib/fs/vm001 socket=/var/run/vm001-vhost-fs.sock cache=Always level=Debug warnings=3")]
    [InlineData(
        "--socket=/var/run/s --socket-group=kvm -o source=/d,writeback,allow_direct_io,no_readdirplus,killpriv_v2,loglevel=warn",
        "dir=/d socket=/var/run/s group=kvm writeback direct no-plus killpriv level=Warning warnings=2")]
    [InlineData(
        "--shared-dir D --socket-path S --rlimit-nofile 0 --preserve-noatime --readonly --no-announce-submounts",
        "dir=D socket=S limit=0 noatime readonly no-submounts")]
    public void A_launchers_line_means(string line, string meaning)
    {
        ServeOptions options = Read(line);

        Assert.Equal(meaning, Describe(options));
    }

    [Theory]
    [InlineData("source=/x", "dir=/x")]
    [InlineData("source=/x=y", "dir=/x=y")]
    [InlineData("cache=auto", "")]
    [InlineData("cache=always", "cache=Always")]
    [InlineData("cache=none", "cache=Never")]
    [InlineData("cache=metadata", "cache=Metadata")]
    [InlineData("loglevel=debug", "level=Debug")]
    [InlineData("loglevel=info", "")]
    [InlineData("loglevel=warn", "level=Warning")]
    [InlineData("loglevel=err", "level=Error")]
    [InlineData("xattr", "xattr")]
    [InlineData("no_xattr", "")]
    [InlineData("xattr,no_xattr", "")]
    [InlineData("readdirplus", "")]
    [InlineData("no_readdirplus", "no-plus")]
    [InlineData("writeback", "writeback")]
    [InlineData("no_writeback", "")]
    [InlineData("allow_direct_io", "direct")]
    [InlineData("no_allow_direct_io", "")]
    [InlineData("announce_submounts", "")]
    [InlineData("killpriv_v2", "killpriv")]
    [InlineData("no_killpriv_v2", "no-killpriv")]
    [InlineData("no_posix_acl", "")]
    [InlineData("no_security_label", "")]
    [InlineData("no_posix_lock", "")]
    [InlineData("no_flock", "")]
    public void A_legacy_item_means(string item, string meaning)
    {
        string expected = meaning.StartsWith("dir=", StringComparison.Ordinal)
            ? $"{meaning} socket=S"
            : $"dir=D socket=S {meaning}".Trim();

        Assert.Equal($"{expected} warnings=1", Describe(Read($"{Least} -o {item}")));
    }

    [Theory]
    [InlineData("posix_lock")]
    [InlineData("flock")]
    [InlineData("cache=never")]
    [InlineData("cache")]
    [InlineData("loglevel=error")]
    [InlineData("sandbox=none")]
    [InlineData("xattr=1")]
    [InlineData("source")]
    [InlineData("xattr,")]
    [InlineData("no_announce_submounts")]
    public void A_legacy_item_that_virtiofsd_refuses_is_refused(string item) =>
        Assert.Contains("-o ", Assert.Throws<UsageException>(() => Read($"{Least} -o {item}")).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("--cache always -o cache=none", "cache=Never")]
    [InlineData("-o cache=none --cache always", "cache=Never")]
    [InlineData("-o loglevel=err --log-level trace", "level=Error")]
    [InlineData("-o no_xattr --xattr", "")]
    [InlineData("-ocache=none", "cache=Never")]
    public void The_legacy_form_wins_wherever_it_stands(string arguments, string meaning) =>
        Assert.Equal($"dir=D socket=S {meaning}".Trim() + " warnings=1", Describe(Read($"{Least} {arguments}")));

    [Theory]
    [InlineData("--migration-mode find-paths --migration-verify-handles --migration-confirm-paths", true)]
    [InlineData("--migration-mode file-handles --migration-on-error guest-error", true)]
    [InlineData("--migration-mode file-handles --migration-verify-handles", false)]
    [InlineData("--migration-mode=file-handles --migration-confirm-paths", false)]
    public void Migration_options_that_make_no_sense_together_are_refused(string arguments, bool isSensible)
    {
        MigrationOptions options = Read($"{Least} {arguments}").Migration;

        if (isSensible)
        {
            options.Check();
        }
        else
        {
            Assert.Contains(
                "find-paths", Assert.Throws<StartupException>(options.Check).Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("debug", LogLevel.Debug)]
    [InlineData("WARN", LogLevel.Warning)]
    [InlineData("off", LogLevel.None)]
    [InlineData("error,virtiofsd=trace", LogLevel.Trace)]
    [InlineData("virtiofsd=info,error", LogLevel.Information)]
    [InlineData("virtiofsd", LogLevel.Trace)]
    [InlineData("vhost_user_backend=debug", LogLevel.None)]
    [InlineData("causeway=debug/pattern", LogLevel.Debug)]
    public void A_filter_in_the_environment_sets_a_level(string filter, LogLevel level) =>
        Assert.Equal(level, StandardErrorLog.ParseFilter(filter));

    // What differs from the defaults, in a few words.
    private static string Describe(ServeOptions options)
    {
        PassthroughOptions share = options.Passthrough;
        (bool IsSaid, string Word)[] words =
        [
            (true, $"dir={share.SharedDirectory}"),
            (options.Socket.Paths.Count > 0, $"socket={string.Join(' ', options.Socket.Paths)}"),
            (options.Socket.Descriptor is not null, $"fd={options.Socket.Descriptor}"),
            (options.Socket.Group is not null, $"group={options.Socket.Group}"),
            (options.Device.Tag is not null, $"tag={options.Device.Tag}"),
            (share.Cache != CacheMode.Auto, $"cache={share.Cache}"),
            (share.FileHandles != InodeFileHandles.Prefer, $"handles={share.FileHandles}"),
            (share.Xattr, "xattr"),
            (share.Writeback, "writeback"),
            (share.AllowMmap, "mmap"),
            (share.AllowDirectIo, "direct"),
            (!share.ReadDirPlus, "no-plus"),
            (share.KillPrivV2 == true, "killpriv"),
            (share.KillPrivV2 == false, "no-killpriv"),
            (options.Process.DescriptorLimit is not null, $"limit={options.Process.DescriptorLimit}"),
            (share.PreserveNoatime, "noatime"),
            (share.ReadOnly, "readonly"),
            (!share.AnnounceSubmounts, "no-submounts"),
            (options.Process.LogLevel != LogLevel.Information, $"level={options.Process.LogLevel}"),
            (options.Process.LogsToSystem, "syslog"),
            (options.Warnings.Count > 0, $"warnings={options.Warnings.Count}"),
        ];
        return string.Join(' ', words.Where(word => word.IsSaid).Select(word => word.Word));
    }

    private static ServeOptions Read(string arguments)
    {
        var syntax = new ServeSyntax();
        var command = new RootCommand();
        syntax.AddAllTo(command);
        ParseResult parsed = command.Parse(arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        return parsed.Errors is [var error, ..] ? throw new UsageException(error.Message) : syntax.Read(parsed);
    }
}
