using System.Globalization;
using System.Text;
using Causeway.Driver;
using Causeway.Linux;
using DriverCache = Causeway.Driver.CacheMode;

namespace Causeway.EndToEnd;

/// <summary>
/// Stock Linux guests on a daemon with a version table: they do not notice, alone and beside our own driver, which keeps what it
/// knows by the table and never sees anything older than what the guest has done.
/// </summary>
public sealed class VersionTableGuestTests : IAsyncDisposable
{
    private const int Rounds = 400;

    private readonly string _folder = Path.Combine(Repository.Root, "artifacts", "end-to-end", "version-table");
    private readonly string _link = Path.Combine("/tmp", $"causeway-{Environment.ProcessId}-versions");
    private Guest? _guest;
    private DaemonProcess? _daemon;
    private VirtioFsClient? _client;

    private Guest Guest => _guest!;

    private VirtioFsClient Client => _client!;

    private string Share => Path.Combine(_folder, "share");

    /// <param name="platform">QEMU 7.2 with vhost-user-fs-pci, or QEMU 11.1.</param>
    /// <param name="dax">With a window: QEMU's generic device, which has the daemon's shared memory regions, the table's too.</param>
    [Theory]
    [InlineData("debian12", null)]
    [InlineData("newer", "16M")]
    public async Task A_stock_guest_works_as_ever_and_our_driver_beside_it_never_sees_the_past(string platform, string? dax)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "needs root: the daemon creates files of any owner");
        Assert.SkipUnless(File.Exists(Repository.Binary), $"no daemon at {Repository.Binary}: run ./build, or set CAUSEWAY_BINARY");
        Assert.SkipWhen(DaemonProcess.IsVirtiofsd, "virtiofsd has no version table");
        await HostCommand.ScriptAsync("install-guest-tools", "test");
        string disk = await HostCommand.ScriptAsync("guest-tools-disk");
        await HostCommand.BashAsync("/", $"rm -rf '{_folder}'; mkdir -p '{Share}' '{_folder}/guest'; ln -s '{_folder}' '{_link}'");
        var configuration = new GuestConfiguration(platform, CacheMode.Never, Queues: 1) { Dax = dax };
        _daemon = await DaemonProcess.StartAsync(
            configuration, Share, $"{_link}/guest.sock", $"{_folder}/daemon.log",
            $"--socket-path={_link}/driver.sock", "--version-table=exclusive");
        _guest = await Guest.BootAsync(configuration, $"{_link}/guest", $"{_link}/guest.sock", disk);

        await WorkAsync("alone");
        _client = await VirtioFsClient.ConnectAsync(
            $"{_link}/driver.sock", new VirtioFsClientOptions { Cache = DriverCache.Coherent });
        await WorkAsync("beside");
        await ChangeEverythingAsync();
        await WriteWhileTheDriverReadsAsync();
        Assert.Empty(_daemon.WarningsSince(0));
    }

    public async ValueTask DisposeAsync()
    {
        if (_client is not null)
        {
            await _client.DisposeAsync();
        }

        if (_guest is not null)
        {
            await _guest.DisposeAsync();
        }

        if (_daemon is not null)
        {
            await _daemon.DisposeAsync();
        }

        File.Delete(_link);
    }

    // What people do with files, and the same tree on both sides at the end.
    private async Task WorkAsync(string directory)
    {
        await RunAsync($$"""
            mkdir /mnt/{{directory}}; cd /mnt/{{directory}}
            mkdir -p a/b; echo text >a/b/f; ln -s b/f a/s; ln a/b/f a/h; chmod 640 a/b/f
            head -c 3M /dev/urandom >data; cp data copy; truncate -s 1000001 copy
            for i in $(seq 200); do echo $i >n$i; done; rm n?; mv n10 renamed; mv n11 n12
            ! cat missing 2>/dev/null; : >missing; cat missing
            ls -lR . >/dev/null; rmdir a/b 2>/dev/null || true
            """);
        const string listing = "find . -printf '%p %y %m %s %n %l\\n' | sort; find . -type f | sort | xargs md5sum";
        Assert.Equal(
            await HostCommand.BashAsync(Path.Combine(Share, directory), listing),
            await RunAsync($"cd /mnt/{directory}; {listing}"));
    }

    // One command of the guest after the other; the driver looks before, so that it has something to keep, and after.
    private async Task ChangeEverythingAsync()
    {
        await RunAsync("cd /mnt; mkdir t; echo old >t/f; ln -s old t/s; touch t/x; mkdir t/d");
        await SeeAsync("echo longer >t/f", "t/f 7 644", () => DescribeAsync("t/f"));
        await SeeAsync("echo longer >t/f; echo others >t/f", "others\n", () => ReadAsync("t/f"));
        await SeeAsync("chmod 600 t/f", "t/f 7 600", () => DescribeAsync("t/f"));
        await SeeAsync("truncate -s 3 t/f", "oth", () => ReadAsync("t/f"));
        await SeeAsync("touch t/new", "d f new s x", () => ListAsync("t"));
        await SeeAsync("touch t/new2", "True", async () => (await Client.ExistsAsync("t/new2")).ToString());
        await SeeAsync("rm t/x", "False", async () => (await Client.ExistsAsync("t/x")).ToString());
        await SeeAsync("ln -sf new t/s", "new", async () => await Client.ReadLinkAsync("t/s"));
        await SeeAsync("mv t/f t/d/f", "t/d/f 3 600", () => DescribeAsync("t/d/f"));
        await SeeAsync("true", "ENOENT", () => DescribeAsync("t/f"));
        await SeeAsync("ln t/d/f t/hard", "2", async () => $"{(await Client.GetStatusAsync("t/d/f")).LinkCount}");
        await SeeAsync("rm t/hard", "1", async () => $"{(await Client.GetStatusAsync("t/d/f")).LinkCount}");
        await SeeAsync("rm t/d/f; rmdir t/d", "ENOENT", () => DescribeAsync("t/d"));
        await SeeAsync("setfattr -n user.test -v 1 t/new || true; touch -d 2001-01-01 t/new", "2001", async () =>
            $"{(await Client.GetStatusAsync("t/new")).ModificationTime.Year}");

        // And nothing is asked while nothing changes.
        const int driver = 2;
        IReadOnlyDictionary<string, long> before = await _daemon!.CountRequestsAsync(driver);
        for (int i = 0; i < 10_000; i++)
        {
            await Client.GetStatusAsync("t/new");
        }

        Assert.Equal(before["GetAttr"], (await _daemon.CountRequestsAsync(driver))["GetAttr"]);
        Assert.Equal(before["Lookup"], (await _daemon.CountRequestsAsync(driver))["Lookup"]);
    }

    // Who has seen what the guest wrote last has to see what it wrote before that.
    private async Task WriteWhileTheDriverReadsAsync()
    {
        await RunAsync("cd /mnt; echo 0 >first; echo 0 >second");
        Task<string> writing = RunAsync($"""
            cd /mnt
            for i in $(seq {Rounds}); do echo $i >first.new; mv first.new first; echo $i >second.new; mv second.new second; done
            """);
        int seen = 0;
        int looks = 0;
        while (seen < Rounds)
        {
            seen = int.Parse(await ReadAsync("second"), CultureInfo.InvariantCulture);
            int first = int.Parse(await ReadAsync("first"), CultureInfo.InvariantCulture);
            Assert.True(first >= seen, $"the first file is at {first}, and the second was at {seen} before");
            looks++;
            if (writing.IsFaulted)
            {
                break;
            }
        }

        await writing;
        Assert.Equal(Rounds, seen);
        TestContext.Current.TestOutputHelper?.WriteLine($"{looks} looks at {Rounds} rounds");
    }

    private async Task SeeAsync(string command, string expected, Func<Task<string>> look)
    {
        // Twice: what it keeps is used the second time.
        await look();
        await look();
        await RunAsync($"cd /mnt; {command}");
        Assert.Equal((command, expected), (command, await look()));
    }

    private async Task<string> DescribeAsync(string path)
    {
        try
        {
            FileStatus status = await Client.GetStatusAsync(path);
            return $"{path} {status.Length} {Convert.ToString(status.Permissions, 8)}";
        }
        catch (VirtioFsException exception) when (exception.Error == Errno.ENOENT)
        {
            return nameof(Errno.ENOENT);
        }
    }

    private async Task<string> ReadAsync(string path)
    {
        await using VirtioFsFile file = await Client.OpenFileAsync(path);
        byte[] bytes = new byte[100];
        return Encoding.ASCII.GetString(bytes, 0, await file.ReadAsync(bytes, 0));
    }

    private async Task<string> ListAsync(string path)
    {
        var names = new List<string>();
        await foreach (DirectoryItem item in Client.EnumerateAsync(path))
        {
            names.Add(item.Name);
        }

        return string.Join(' ', names.Order(StringComparer.Ordinal));
    }

    private async Task<string> RunAsync(string script)
    {
        GuestResult result = await Guest.RunAsync("set -euo pipefail\n" + script, time: TimeSpan.FromMinutes(4));
        Assert.True(result.Status == 0, $"'{script}' ends with {result.Status}: {result.OutputText}\n{result.ErrorText}");
        return result.OutputText;
    }
}
