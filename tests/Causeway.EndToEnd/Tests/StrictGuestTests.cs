using System.Globalization;

namespace Causeway.EndToEnd;

/// <summary>
/// What the version table promises with <c>--version-table=strict</c>: whoever uses the share never sees anything older than what processes of
/// the host have done. It takes a kernel with delegations, so the daemon runs in a guest that has one, and so do those processes and the
/// mount.
/// </summary>
public sealed class StrictGuestTests : IAsyncLifetime
{
    // Objects and their names in Programs/strict.c.
    private const int Names = 19;

    private readonly string _folder = Path.Combine(Repository.Root, "artifacts", "end-to-end", "strict");
    private readonly string _link = Path.Combine("/tmp", $"causeway-{Environment.ProcessId}-strict");
    private Guest? _guest;
    private DaemonProcess? _daemon;

    public async ValueTask InitializeAsync()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "needs root: the daemon creates files of any owner");
        Assert.SkipUnless(File.Exists(Repository.Binary), $"no daemon at {Repository.Binary}: run ./build, or set CAUSEWAY_BINARY");
        Assert.SkipWhen(DaemonProcess.IsVirtiofsd, "virtiofsd has no version table");
        await HostCommand.ScriptAsync("install-guest-tools", "test");
        string disk = await HostCommand.ScriptAsync("guest-tools-disk");
        string source = Path.Combine(Repository.Root, "tests", "Causeway.EndToEnd", "Programs", "strict.c");
        await HostCommand.BashAsync(
            "/",
            $"""
            rm -rf '{_folder}'; mkdir -p '{_folder}/share' '{_folder}/guest'; ln -s '{_folder}' '{_link}'
            cp '{Repository.Binary}' '{_folder}/share/causeway'; gcc -static -O2 -Wall -Werror -o '{_folder}/share/strict' '{source}'
            """);
        var configuration = new GuestConfiguration("newer", CacheMode.Auto, Queues: 1);
        _daemon = await DaemonProcess.StartAsync(
            configuration, Path.Combine(_folder, "share"), $"{_link}/guest.sock", $"{_folder}/daemon.log");
        _guest = await Guest.BootAsync(configuration, $"{_link}/guest", $"{_link}/guest.sock", disk);

        // share FOLDER OPTIONS: a share at /tmp/FOLDER, mounted at /tmp/FOLDER.mount; the daemon's process in /tmp/FOLDER.pid.
        await RunAsync("""
            cp /mnt/causeway /mnt/strict /usr/bin
            cat >/usr/bin/share <<'END'
            #!/bin/bash
            set -euo pipefail
            folder=/tmp/$1
            shift
            mkdir -p $folder $folder.mount
            causeway serve --shared-dir $folder --socket-path $folder.sock --xattr --seccomp kill "$@" >$folder.log 2>&1 </dev/null &
            echo $! >$folder.pid
            for i in $(seq 600); do [ ! -S $folder.sock ] || break; sleep 0.1; done
            causeway mount $folder.sock $folder.mount -o cache=${CACHE:-strict} >$folder.mount.log 2>&1 </dev/null &
            for i in $(seq 600); do ! mountpoint -q $folder.mount || break; sleep 0.1; done
            mountpoint -q $folder.mount || { cat $folder.log $folder.mount.log; exit 1; }
            END
            chmod +x /usr/bin/share
            """);
    }

    public async ValueTask DisposeAsync()
    {
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

    [Fact]
    public async Task What_host_processes_have_done_is_seen_by_whoever_looks_afterwards()
    {
        // On tmpfs, in the daemon's own sandbox; and what keeps everything asks for nothing while nothing changes.
        await RunAsync("share tmpfs --version-table=strict");
        Report(await RunAsync("strict compare /tmp/tmpfs /tmp/tmpfs.mount 100 1 0"));
        // Once nothing is given up any more for the sake of those who had to wait.
        await RunAsync("for i in $(seq 15); do strict still /tmp/tmpfs.mount 2; sleep 1; done");
        long before = await CountAsync("tmpfs");
        await RunAsync("strict still /tmp/tmpfs.mount 30");
        long asked = await CountAsync("tmpfs") - before;

        // But what symbolic links are like, of which there are no delegations.
        long links = long.Parse(await RunAsync("find /tmp/tmpfs -type l | wc -l"), CultureInfo.InvariantCulture);
        Assert.InRange(asked, 0, (30 * 2 * links) + Names);
        await RunAsync("rm -rf /tmp/tmpfs/*");
        Report(await RunAsync("strict order /tmp/tmpfs /tmp/tmpfs.mount 400"));

        // The same program on what is watched sees the past, or it would show nothing.
        await RunAsync("share watched --version-table=watched");
        GuestResult watched = await TryAsync("strict compare /tmp/watched /tmp/watched.mount 100 1 0");
        Assert.Equal(1, watched.Status);
        Assert.Contains("is shown as", watched.OutputText, StringComparison.Ordinal);

        // Where the kernel keeps everything by itself, it is told by the log.
        await RunAsync("CACHE=coherent share told --version-table=strict");
        Report(await RunAsync("strict compare /tmp/told /tmp/told.mount 30 5 300"));

        // Another file system.
        await RunAsync("""
            truncate -s 64M /tmp/image; mkfs.ext4 -q /tmp/image; mkdir /tmp/ext4; mount -o loop /tmp/image /tmp/ext4; rm -r /tmp/ext4/*
            share ext4 --version-table=strict
            """);
        Report(await RunAsync("strict compare /tmp/ext4 /tmp/ext4.mount 60 2 0"));

        // Fewer delegations than objects: then some are asked for each time.
        await RunAsync("share few --version-table=strict --rlimit-nofile 1700; for i in $(seq 1000); do echo $i >/tmp/few/many$i; done");
        await RunAsync("ls -l /tmp/few.mount >/dev/null; ls -l /tmp/few.mount >/dev/null");
        before = await CountAsync("few");
        await RunAsync("ls -l /tmp/few.mount >/dev/null");
        Assert.InRange(await CountAsync("few") - before, 100, 10_000);
        Report(await RunAsync("strict compare /tmp/few /tmp/few.mount 30 3 0"));

        // No signal of which one is asked for can be kept: all are given back then.
        await RunAsync("ulimit -i 0; share mute --version-table=strict");
        Report(await RunAsync("strict compare /tmp/mute /tmp/mute.mount 30 4 0"));

        // A user's own files, without any privilege.
        await RunAsync("""
            mkdir /tmp/own; chown 1000:1000 /tmp/own
            setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all --bounding-set=-all causeway serve --sandbox none \
                --shared-dir /tmp/own --socket-path /tmp/own.sock --version-table=strict >/tmp/own.log 2>&1 </dev/null &
            for i in $(seq 600); do [ ! -S /tmp/own.sock ] || break; sleep 0.1; done
            mkdir /tmp/own.mount; causeway mount /tmp/own.sock /tmp/own.mount -o cache=strict >/dev/null 2>&1 </dev/null &
            for i in $(seq 600); do ! mountpoint -q /tmp/own.mount || break; sleep 0.1; done
            """);
        Report(await RunAsync("""
            setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'echo 1 >/tmp/own/f'; cat /tmp/own.mount/f; cat /tmp/own.mount/f
            setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'echo 2 >/tmp/own/f'; [ "$(cat /tmp/own.mount/f)" = 2 ]
            """));
    }

    // Between giving a delegation up and marking words others could look, if it was done in this order; but they would have to be quick.
    [Fact]
    public async Task What_is_given_up_is_in_flight_before_however_long_giving_it_up_takes()
    {
        await RunAsync("share slow --version-table=strict");
        Report(await RunAsync("""
            daemon=/proc/$(pgrep -P $(cat /tmp/slow.pid))
            thread=$(basename $(dirname $(grep -l delegations $daemon/task/*/comm)))
            strace -q -o /dev/null -p $thread -e trace=close -e inject=close:delay_exit=30000 &
            for i in $(seq 600); do grep -q 'TracerPid:.*[1-9]' $daemon/task/$thread/status && break || sleep 0.1; done
            grep 'TracerPid:.*[1-9]' $daemon/task/$thread/status
            strict compare /tmp/slow /tmp/slow.mount 40 6 0
            kill $!
            """));
    }

    [Fact]
    public async Task What_a_symbolic_link_is_like_is_never_kept()
    {
        await RunAsync("share links --version-table=strict; ln -s there /tmp/links/link");
        await RunAsync("""
            for owner in $(seq 20); do
                stat /tmp/links.mount/link; stat /tmp/links.mount/link
                chown -h $owner /tmp/links/link
                [ "$(stat -c %u /tmp/links.mount/link)" = $owner ]
            done
            """);
    }

    [Fact]
    public async Task A_daemon_that_is_stopped_or_killed_holds_nobody_up_for_ever_and_nobody_sees_the_past()
    {
        await RunAsync("echo 2 >/proc/sys/fs/lease-break-time; share stopped --version-table=strict; echo old >/tmp/stopped/file");
        await RunAsync("cat /tmp/stopped.mount/file; sleep 1; cat /tmp/stopped.mount/file; stat /tmp/stopped.mount/file");

        // The kernel waits for as long as it was told, and then takes the delegation away. By then nobody believes the table any more.
        await RunAsync("""
            kill -STOP $(cat /tmp/stopped.pid) $(pgrep -P $(cat /tmp/stopped.pid))
            chmod 600 /tmp/stopped/file
            (sleep 3; kill -CONT $(cat /tmp/stopped.pid) $(pgrep -P $(cat /tmp/stopped.pid))) &
            [ "$(stat -c %a /tmp/stopped.mount/file)" = 600 ]
            """);
        await RunAsync("[ \"$(stat -c %a /tmp/stopped.mount/file)\" = 600 ]");

        await RunAsync("""
            kill -KILL $(cat /tmp/stopped.pid) $(pgrep -P $(cat /tmp/stopped.pid))
            echo new >/tmp/stopped/file
            ! cat /tmp/stopped.mount/file
            """);
    }

    private Task<GuestResult> TryAsync(string script) =>
        _guest!.RunAsync("set -euo pipefail\n" + script, time: TimeSpan.FromMinutes(8));

    private async Task<string> RunAsync(string script)
    {
        GuestResult result = await TryAsync(script);
        Assert.True(result.Status == 0, $"'{script}' ends with {result.Status}: {result.OutputText}\n{result.ErrorText}");
        return result.OutputText;
    }

    // All requests that a daemon in the guest has had.
    private async Task<long> CountAsync(string share)
    {
        string line = await RunAsync($"""
            lines=$(grep -c 'Requests so far' /tmp/{share}.log || true)
            kill -USR1 $(cat /tmp/{share}.pid) $(pgrep -P $(cat /tmp/{share}.pid))
            for i in $(seq 300); do [ "$(grep -c 'Requests so far' /tmp/{share}.log)" -eq "$lines" ] || break; sleep 0.1; done
            grep 'Requests so far' /tmp/{share}.log | tail -n 1 | sed 's/.*so far: //'
            """);
        return line.Split(", ").Sum(count => long.Parse(count.Split(' ')[1], CultureInfo.InvariantCulture));
    }

    private static void Report(string text) => TestContext.Current.TestOutputHelper?.WriteLine(text);
}
