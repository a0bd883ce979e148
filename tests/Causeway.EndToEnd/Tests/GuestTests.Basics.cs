using System.Globalization;
using System.Text;

namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    [Fact]
    public async Task A_file_written_in_the_guest_has_its_bytes_owner_mode_and_times_on_the_host()
    {
        long before = DateTimeOffset.UtcNow.ToUnixTimeSeconds();
        await GuestAsync("""printf 'one\r\ntwo\0three' >file; chmod 640 file; sync""");

        Assert.Equal("one\r\ntwo\0three"u8.ToArray(), await File.ReadAllBytesAsync(HostPath("file")));
        Assert.Equal("0:0 640 14 regular file\n", await HostAsync("stat -c '%u:%g %a %s %F' file"));
        // With writeback the time is the guest's, whose clock may differ by a little.
        long modified = new DateTimeOffset(File.GetLastWriteTimeUtc(HostPath("file"))).ToUnixTimeSeconds();
        Assert.InRange(modified, before - 5, DateTimeOffset.UtcNow.ToUnixTimeSeconds() + 5);
        // With writeback the guest keeps a time of change of its own, which it never sends.
        string changed = Configuration.Cache == CacheMode.AlwaysWriteback ? "" : "%z";
        await AssertSameAsync($"stat -c '%i %u:%g %a %h %s %b %y {changed}' file");
    }

    [Fact]
    public async Task The_rings_are_of_the_kind_that_was_asked_for()
    {
        // One character for each feature bit; 34 is VIRTIO_F_RING_PACKED.
        string features = await GuestAsync("cat /sys/bus/virtio/drivers/virtiofs/virtio*/features");
        Assert.Equal(Configuration.PackedRings ? '1' : '0', features[34]);
    }

    [Fact]
    public async Task An_ordinary_user_owns_what_they_create_and_is_kept_out_of_the_rest()
    {
        await HostAsync("echo secret >secret; chmod 600 secret");
        await GuestAsync("""
            as_user() { setpriv --reuid=1000 --regid=1000 --clear-groups -- "$@"; }
            as_user mkdir directory
            as_user sh -c 'umask 027; echo mine >directory/file; ln -s file directory/link'
            refused as_user cat secret
            refused as_user sh -c 'echo x >>secret'
            refused as_user chown 0 directory/file
            refused as_user mkdir /mnt/not-theirs
            """);

        Assert.Equal(
            "directory 1000:1000 755\ndirectory/file 1000:1000 640\ndirectory/link 1000:1000 777\n",
            await HostAsync("stat -c '%n %u:%g %a' directory directory/file directory/link"));
    }

    [Fact]
    public async Task The_guest_lists_and_reads_the_hosts_files()
    {
        byte[] content = new byte[300_000];
        new Random(1).NextBytes(content);
        await File.WriteAllBytesAsync(HostPath("binary"), content);
        await HostAsync("mkdir sub; echo text >sub/text; chown 1234:4321 sub/text; chmod 4755 sub/text; touch -d '2001-02-03 04:05:06.789' sub");

        await AssertSameAsync("ls -lAn --time-style=full-iso . sub");
        await AssertSameAsync("sha256sum binary sub/text");
    }

    [Fact]
    public async Task Truncating_down_and_up_leaves_zeros_in_between()
    {
        await GuestAsync("printf 0123456789 >file; truncate -s 4 file; truncate -s 8 file; : >empty; truncate -s 100000 empty");

        Assert.Equal("0123\0\0\0\0"u8.ToArray(), await File.ReadAllBytesAsync(HostPath("file")));
        Assert.Equal(new byte[100_000], await File.ReadAllBytesAsync(HostPath("empty")));
        await AssertSameAsync("stat -c '%n %s' file empty; sha256sum file empty");
    }

    [Fact]
    public async Task Times_are_set_to_the_nanosecond_and_may_lie_far_away()
    {
        await GuestAsync("""
            touch -a -d '2011-11-11 11:11:11.111111111 UTC' file
            touch -m -d '1969-12-31 23:59:58.5 UTC' file
            touch -d '2100-01-01 00:00:00.000000001 UTC' later
            ln -s nowhere link; touch -h -d '2005-05-05 05:05:05.5 UTC' link
            """);

        Assert.Equal(
            "file 1321009871.111111111 -1.500000000\nlater 4102444800.000000001 4102444800.000000001\n",
            await HostAsync("TZ=UTC stat -c '%n %.9X %.9Y' file later"));
        await AssertSameAsync("stat -c '%n %.9Y' link");
    }

    [Fact]
    public async Task Modes_and_owners_are_changed_by_root_and_by_descriptor()
    {
        await GuestPythonAsync("""
            descriptor = os.open('file', os.O_CREAT | os.O_RDWR, 0o600)
            os.fchmod(descriptor, 0o6751)
            os.fchown(descriptor, 1000, 2000)
            os.fchmod(descriptor, 0o2711)
            os.mkdir('directory', 0o1777)
            os.chmod('directory', 0o1770)
            os.symlink('file', 'link')
            os.lchown('link', 5, 6)
            """);

        Assert.Equal(
            "file 2711 1000:2000\ndirectory 1770 0:0\nlink 777 5:6\n", await HostAsync("stat -c '%n %a %u:%g' file directory link"));
    }

    [Fact]
    public async Task A_setgid_directory_passes_its_group_on()
    {
        await GuestAsync("mkdir parent; chown 0:1000 parent; chmod 2775 parent; mkdir parent/child; touch parent/file");

        Assert.Equal("1000 2755\n1000 644\n", await HostAsync("stat -c '%g %a' parent/child parent/file"));
    }

    [Fact]
    public async Task User_attributes_are_set_listed_replaced_and_removed()
    {
        await GuestAsync("""
            touch file
            setfattr -n user.one -v first file
            setfattr -n user.one -v again file
            setfattr -n user.binary -v 0x00ff0a file
            setfattr -n user.gone -v x file
            setfattr -x user.gone file
            refused getfattr -n user.gone file
            """);

        string expected = "# file: file\nuser.binary=0x00ff0a\nuser.one=0x616761696e\n\n";
        Assert.Equal(expected, await HostAsync("getfattr -d -e hex file"));
        Assert.Equal(expected, await GuestAsync("getfattr -d -e hex file"));
    }

    [Fact]
    public async Task The_file_systems_size_is_the_hosts()
    {
        string script = "stat -f -c '%s %b' .";
        Assert.Equal(await HostAsync(script), await GuestAsync(script));
        double free = double.Parse(await GuestAsync("stat -f -c '%f' ."), CultureInfo.InvariantCulture);
        double hostFree = double.Parse(await HostAsync("stat -f -c '%f' ."), CultureInfo.InvariantCulture);
        // Others write to the host's disk meanwhile.
        Assert.InRange(free / hostFree, 0.8, 1.25);
    }

    [Fact]
    public async Task What_one_guest_process_writes_is_there_after_fsync()
    {
        byte[] expected = Encoding.ASCII.GetBytes(string.Concat(Enumerable.Range(0, 5000).Select(n => $"line {n}\n")));
        await GuestPythonAsync("""
            descriptor = os.open('file', os.O_CREAT | os.O_WRONLY)
            for n in range(5000):
                os.write(descriptor, b'line %d\n' % n)
                if n % 1000 == 0:
                    os.fdatasync(descriptor)
            os.fsync(descriptor)
            os.fsync(os.open('.', os.O_RDONLY))
            """);

        Assert.Equal(expected, await File.ReadAllBytesAsync(HostPath("file")));
    }
}
