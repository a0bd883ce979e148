using Causeway.Driver;

namespace Causeway.EndToEnd;

/// <content>Files that change under a mapping, by the host's hand and by another guest's.</content>
public sealed partial class DaxTests
{
    [Fact]
    public async Task What_the_host_punches_replaces_and_deletes_is_the_same_in_a_guest_that_has_it_mapped()
    {
        await HostAsync("for f in punched replaced deleted; do head -c 1M /dev/urandom >$f; done; head -c 1M /dev/urandom >new");
        string[] before = (await HostAsync("md5sum <replaced; md5sum <deleted; md5sum <new")).Split('\n');
        Task<string> guest = GuestAsync("""
            python3 - <<'END'
            import hashlib, mmap, os, time
            def md5(data):
                return hashlib.md5(data).hexdigest()
            maps, fds = {}, {}
            for name in ('punched', 'replaced', 'deleted'):
                fds[name] = os.open(name, os.O_RDWR)
                maps[name] = mmap.mmap(fds[name], 1 << 20)
                md5(maps[name])
            open('mapped', 'w').close()
            until = time.monotonic() + 100
            while os.path.exists('mapped'):
                assert time.monotonic() < until
                time.sleep(0.05)
            for name in maps:
                assert os.pread(fds[name], 1 << 20, 0) == maps[name][:]
                print(md5(maps[name]))
            # By name: the new one, as soon as the guest looks again.
            while md5(open('replaced', 'rb').read()) != md5(open('new-too', 'rb').read()) or os.path.exists('deleted'):
                assert time.monotonic() < until
                time.sleep(0.05)
            END
            """);
        await Deadline.UntilAsync(
            "the guest has mapped the files", TimeSpan.FromSeconds(100), () => File.Exists(Path.Combine(HostDirectory, "mapped")));
        Assert.InRange(CountMappings(fixture.Guest.Qemu), 3, 6);
        await HostAsync("""
            cp new new-too
            fallocate --punch-hole --offset 8192 --length 500000 punched
            mv new replaced
            rm deleted mapped
            """);
        string[] after = (await guest).Split('\n');
        Assert.Equal(((await HostAsync("md5sum <punched"))[..32], before[0][..32], before[1][..32]), (after[0], after[1], after[2]));
    }

    [Fact]
    public async Task What_another_guest_cuts_off_under_a_mapping_is_no_end_for_QEMU()
    {
        await HostAsync("head -c 4M /dev/urandom >file");
        await using DaemonProcess daemon = await StartSecondAsync("--max-guests=2");
        Guest other = await BootSecondAsync();
        try
        {
            await using VirtioFsClient client = await VirtioFsClient.ConnectAsync($"{fixture.SecondFolder}/share.sock");
            await using VirtioFsFile file = await client.OpenFileAsync(
                $"{TestName}/file", new OpenFileOptions { Access = FileAccess.ReadWrite });
            GuestResult mapped = await other.RunAsync($"""
                cat >/tmp/hold.py <<'END'
                import mmap, os, time
                m = mmap.mmap(os.open('/mnt/{TestName}/file', os.O_RDWR), 4 << 20)
                kept = m[:1 << 20]
                len(m[:])
                open('/tmp/held', 'w').close()
                while not os.path.exists('/tmp/go'):
                    time.sleep(0.05)
                assert m[:1 << 20] == kept
                print('kept', flush=True)
                # Whatever that is: the guest has not been told, and may get anything, or a signal.
                len(m[:])
                m[3 << 20] = 1
                END
                setsid python3 /tmp/hold.py </dev/null >/tmp/out 2>&1 &
                while ! test -e /tmp/held && ! grep -q . /tmp/out; do sleep 0.05; done
                cat /tmp/out
                """);
            Assert.Equal((0, ""), (mapped.Status, mapped.OutputText));
            Assert.Equal(2, CountMappings(other.Qemu));

            await file.SetLengthAsync(1 << 20);

            GuestResult after = await other.RunAsync($"""
                touch /tmp/go
                while pgrep -f hold.py >/dev/null; do sleep 0.05; done
                cat /tmp/out
                cd /mnt/{TestName}
                until test $(stat -c %s file) = {1 << 20}; do sleep 0.05; done
                md5sum <file
                """);
            Assert.StartsWith("kept\n", after.OutputText, StringComparison.Ordinal);
            Assert.EndsWith(await HostAsync("md5sum <file"), after.OutputText, StringComparison.Ordinal);
            Assert.Equal($"{1 << 20}\n", await HostAsync("stat -c %s file"));
        }
        finally
        {
            await other.KillAsync();
        }

        Assert.Empty(daemon.WarningsSince(0));
    }
}
