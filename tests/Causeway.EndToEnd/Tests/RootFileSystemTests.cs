using System.Diagnostics;

namespace Causeway.EndToEnd;

/// <summary>
/// A complete Debian in a directory of the host, with that directory as its root file system from the kernel's first moment on: no
/// disk, no initial file system.
/// </summary>
/// <remarks>
/// What the guest does is a service of its own, which writes what it saw into the share. It starts twice: the first time it ends with
/// a restart, the second time it switches off.
/// </remarks>
public sealed class RootFileSystemTests
{
    private static readonly TimeSpan _bootTime = TimeSpan.FromSeconds(420);

    private const string Steps = """
        #!/bin/bash
        # Run by the service below in each start of the guest.
        set -e
        cd /root
        exec >>steps.log 2>&1
        set -x
        if [ ! -e first ]; then
            grep ' / ' /proc/mounts >mounts
            apt-get update
            apt-get install --yes causeway-greeting
            dpkg --status causeway-greeting | grep ^Status >installed
            greeting >greeted
            printf '#include <stdio.h>\nint main(void) { puts("compiled in the guest"); return 0; }\n' >program.c
            gcc -O2 -o program program.c
            ./program >compiled
            cat /proc/sys/kernel/random/boot_id >first
            systemctl reboot
        else
            greeting >greeted-again
            ./program >run-again
            apt-get remove --yes causeway-greeting
            dpkg --audit >audit
            systemctl --failed --plain --no-legend >failed
            cat /proc/sys/kernel/random/boot_id >second
            systemctl poweroff
        fi
        """;

    private const string Service = """
        [Unit]
        Description=What the test wants done
        [Service]
        ExecStart=/root/steps
        [Install]
        WantedBy=multi-user.target
        """;

    [Fact]
    public async Task A_debian_starts_from_the_share_installs_compiles_restarts_and_switches_off()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "needs root: the daemon creates files of any owner");
        Assert.SkipUnless(File.Exists(Repository.Binary), $"no daemon at {Repository.Binary}: run ./build, or set CAUSEWAY_BINARY");
        string archive = await HostCommand.ScriptAsync("guest-root-tree");
        string folder = Path.Combine(Repository.Root, "artifacts", "end-to-end", "root");
        string share = Path.Combine(folder, "share");
        await HostCommand.BashAsync("/", $"""
            rm -rf --one-file-system '{folder}'
            mkdir -p '{share}'
            tar --extract --file '{archive}' --numeric-owner --xattrs --directory '{share}'
            """);
        await MakePackageAsync(folder, share);
        await File.WriteAllTextAsync(Path.Combine(share, "root", "steps"), Steps);
        await File.WriteAllTextAsync(Path.Combine(share, "etc", "systemd", "system", "steps.service"), Service);
        await HostCommand.BashAsync(share, """
            chmod 755 root/steps
            ln -s ../steps.service etc/systemd/system/multi-user.target.wants/steps.service
            """);

        // Sockets need short paths.
        string link = Path.Combine("/tmp", $"causeway-{Environment.ProcessId}-root");
        File.CreateSymbolicLink(link, folder);
        try
        {
            await RunAsync(folder, share, link);
            await AssertDoneAsync(folder, Path.Combine(share, "root"));
        }
        finally
        {
            File.Delete(link);
        }

        // Hundreds of megabytes that say nothing once the test has passed.
        Directory.Delete(share, recursive: true);
    }

    // A package and a repository for it inside the share: the guest has no network.
    private static async Task MakePackageAsync(string folder, string share) => await HostCommand.BashAsync(folder, $"""
        mkdir -p package/DEBIAN package/usr/bin '{share}/srv/packages'
        printf '#!/bin/sh\necho greetings from a package\n' >package/usr/bin/greeting
        chmod 755 package/usr/bin/greeting
        printf '%s\n' 'Package: causeway-greeting' 'Version: 1.0' 'Architecture: all' 'Maintainer: nobody <nobody@localhost>' \
            'Depends: bash' 'Description: greets' >package/DEBIAN/control
        dpkg-deb --root-owner-group --build package '{share}/srv/packages/causeway-greeting.deb' >/dev/null
        cd '{share}/srv/packages'
        cat "{folder}/package/DEBIAN/control" >Packages
        printf '%s\n' 'Filename: ./causeway-greeting.deb' "Size: $(stat -c %s causeway-greeting.deb)" \
            "SHA256: $(sha256sum causeway-greeting.deb | cut -d ' ' -f 1)" >>Packages
        echo 'deb [trusted=yes] file:/srv/packages ./' >'{share}/etc/apt/sources.list'
        """);

    private static async Task RunAsync(string folder, string share, string link)
    {
        var configuration = new GuestConfiguration("newer", CacheMode.Auto, Queues: 1);
        await using DaemonProcess daemon =
            await DaemonProcess.StartAsync(configuration, share, $"{link}/share.sock", $"{folder}/daemon.log");
        long started = Stopwatch.GetTimestamp();
        string script = $"exec \"$@\" >'{link}/qemu.log' 2>&1 </dev/null";
        string[] options =
        [
            "--run", link, "--platform", configuration.Platform, "--mode", "root", "--share", $"{link}/share.sock={Guest.Tag}",
            "--memory", "1G", "--allow-reboot",
        ];
        using Process qemu = Process.Start("/bin/bash", ["-c", script, "bash", Repository.Script("boot-guest"), .. options]);
        try
        {
            string root = Path.Combine(share, "root");
            await Deadline.UntilAsync(
                $"the guest has started, worked, and begun to restart (console: {folder}/console.log; its log: {root}/steps.log)",
                _bootTime,
                () => File.Exists(Path.Combine(root, "first")) || qemu.HasExited);
            await Deadline.UntilAsync(
                $"the guest has started again, and switched itself off (console: {folder}/console.log; its log: {root}/steps.log)",
                _bootTime,
                () => qemu.HasExited);
            Console.Error.WriteLine($"root: both starts took {Stopwatch.GetElapsedTime(started).TotalSeconds:0} s");
            Assert.Equal(0, qemu.ExitCode);
            Assert.Equal(0, await daemon.WaitForExitAsync());
            Assert.Empty(daemon.WarningsSince(0));
        }
        finally
        {
            if (!qemu.HasExited)
            {
                qemu.Kill();
                await qemu.WaitForExitAsync();
            }
        }
    }

    private static async Task AssertDoneAsync(string folder, string root)
    {
        Assert.StartsWith("causeway / virtiofs rw", await ReadAsync("mounts"), StringComparison.Ordinal);
        Assert.Equal("Status: install ok installed\n", await ReadAsync("installed"));
        Assert.Equal("greetings from a package\n", await ReadAsync("greeted"));
        Assert.Equal("compiled in the guest\n", await ReadAsync("compiled"));

        // Another boot of the same system, which has kept everything.
        Assert.NotEqual(await ReadAsync("first"), await ReadAsync("second"));
        Assert.Equal("greetings from a package\n", await ReadAsync("greeted-again"));
        Assert.Equal("compiled in the guest\n", await ReadAsync("run-again"));
        Assert.Equal("", await ReadAsync("audit"));
        Assert.Equal("", await ReadAsync("failed"));
        Assert.False(File.Exists(Path.Combine(root, "..", "usr", "bin", "greeting")), "the package was not removed");

        string console = await File.ReadAllTextAsync(Path.Combine(folder, "console.log"));
        Assert.Contains("reboot: Power down", console, StringComparison.Ordinal);

        Task<string> ReadAsync(string name) => File.ReadAllTextAsync(Path.Combine(root, name));
    }
}
