namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    /// <summary>
    /// What root in a guest can do without a kernel of its own making; tests of Causeway.Tests drive the daemon as one who has that.
    /// </summary>
    [Fact]
    public async Task Root_in_the_guest_reaches_nothing_outside_of_the_share()
    {
        string outside = Path.Combine(fixture.Folder, "outside");
        await File.WriteAllTextAsync(outside, "secret");
        string attributes = await HostCommand.BashAsync(fixture.Folder, "stat -c '%a %u %g %s %Y' outside");

        await GuestAsync("""
            ln -s ../../outside up
            ln -s /proc/self/root magic
            refused cat up
            refused cat /mnt/../../outside
            refused chmod 777 up
            mknod null c 1 3 && mknod disk b 254 0
            echo 'kept in the guest' >null
            printf '#!/bin/sh\nid -u\n' >suid && chmod 4755 suid && chown 0:0 suid
            """);
        await GuestPythonAsync("""
            import ctypes
            os.mkdir('d')
            for i in range(400):
                os.rename('d', 'e')
                os.symlink('../..', 'd')
                try:
                    open('d/outside')
                    assert False, 'the guest has read a file outside of the share'
                except FileNotFoundError:
                    pass
                os.unlink('d')
                os.rename('e', 'd')
            libc = ctypes.CDLL(None, use_errno=True)
            mount = os.open('/mnt', os.O_RDONLY)
            class Handle(ctypes.Structure):
                _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]
            own = Handle(bytes=128)
            number = ctypes.c_int()
            known = libc.name_to_handle_at(mount, b'.', ctypes.byref(own), ctypes.byref(number), 0) == 0
            opened = 0
            for i in range(500):
                forged = Handle(bytes=own.bytes if known else 12, type=own.type if known else 0x81)
                ctypes.memmove(forged.data, os.urandom(128), 128)
                opened += libc.open_by_handle_at(mount, ctypes.byref(forged), os.O_RDONLY) >= 0
            assert opened == 0, opened
            """);

        Assert.Equal("secret", await File.ReadAllTextAsync(outside));
        Assert.Equal(attributes, await HostCommand.BashAsync(fixture.Folder, "stat -c '%a %u %g %s %Y' outside"));
        string open = await HostCommand.BashAsync("/", $"ls -l /proc/{fixture.Daemon.Worker}/fd");
        Assert.DoesNotContain("/dev/vda", open);
        Assert.Equal("alive\n", await GuestAsync("echo alive >file && cat file"));
    }
}
