namespace Causeway.EndToEnd;

/// <summary>
/// What a guest can do besides when it is served with access control lists, killpriv-v2 and the flags of inodes. Each test does the same
/// in the guest and natively on the host, in two directories of one file system, and compares.
/// </summary>
public abstract class PrivilegedGuestTests(GuestFixture fixture) : GuestTests(fixture)
{
    // "try COMMAND" prints how it ended, in the words of the C library, which are the same in every program.
    private const string Words = """
        umask 022
        as_user() { local id=$1; shift; setpriv --reuid="$id" --regid="$id" --clear-groups -- "$@"; }
        try() { local why; if why=$("$@" 2>&1 >/dev/null); then echo "$*: ok"; else echo "$*: ${why##*: }"; fi; }

        """;

    private const string LookAtFlags =
        "for name in f g d u; do echo \"$name $(lsattr -d $name 2>/dev/null | cut -d ' ' -f 1 | tr -d -- -)\"; done";

    [Fact]
    public async Task Set_id_bits_go_with_a_change_by_somebody_else_and_the_host_sees_it() => await AssertSameWorkAsync(
        """
        number=0
        for how in 'echo x >>$0' 'echo x >$0' 'truncate -s 3 $0' 'fallocate -l 100 $0' 'chgrp 1000 $0'; do
            number=$((number + 1))
            for user in 1000 1001; do
                for mode in 6777 2776; do
                    name=$number-$user-$mode
                    echo content >$name
                    chown 1000:1000 $name
                    chmod $mode $name
                    try as_user $user sh -c "$how" $name
                done
            done
        done
        """,
        "stat -c '%n %a %u:%g %s' *");

    [Fact]
    public async Task Access_control_lists_are_obeyed_and_inherited_as_on_the_host()
    {
        const string ask = """
            for name in file tree/sub/file tree/root copy tree/moved; do
                for user in 1000 1001; do
                    try as_user $user cat $name
                    try as_user $user sh -c 'echo more >>$0' $name
                done
                try setpriv --reuid=1001 --regid=2000 --clear-groups -- sh -c 'echo more >>$0' $name
            done
            try as_user 1001 ls tree
            try as_user 1001 touch tree/new
            """;
        const string look = "getfacl --numeric --recursive --physical .; find . -printf '%p %m %U:%G %s\\n' | sort";
        await AssertSameWorkAsync(
            $"""
            echo secret >file
            chmod 600 file
            setfacl -m u:1000:r,g:2000:rw file
            mkdir -m 770 tree
            setfacl -m u:1000:rwx,d:u:1000:rwx,d:g:2000:r-x,d:o::- tree
            as_user 1000 sh -c 'umask 077; mkdir tree/sub; echo x >tree/sub/file; mkfifo tree/fifo; ln -s x tree/link'
            (umask 0; echo x >tree/root)
            cp --preserve=all file copy
            cp file tree/moved
            chmod 640 tree/root
            chmod 707 tree/sub/file
            setfacl -x u:1000 copy
            setfacl -k tree
            touch tree/after
            try as_user 1001 setfacl -m u:1001:rw file
            try setfacl -d -m u:1000:r file
            {ask}
            """,
            look);

        // What was made on the host holds in the guest.
        Assert.Equal(await HostAsync($"{Words}cd host\n{ask}\n"), await GuestAsync($"{Words}cd host\n{ask}\n"));
    }

    [Theory]
    [InlineData("/mnt/")]
    [InlineData("/mnt/submount/")]
    public async Task Immutable_and_append_only_files_are_what_they_are_on_the_host(string mount)
    {
        const string work = """
            mkdir d
            for name in f g u d/f; do echo x >$name; done
            chown 1000 u
            try chattr +i f
            try sh -c 'echo y >>f'
            try rm f
            try mv f h
            try ln f h
            try chmod 600 f
            try touch f
            try setfattr -n user.a -v b f
            try cat f
            try chattr +a g
            try sh -c 'echo y >g'
            try sh -c 'echo y >>g'
            try truncate -s 0 g
            try rm g
            try chattr +a d
            try touch d/new
            try rm d/f
            try chattr -a d
            try chattr +i d
            try touch d/other
            try rm d/f
            try as_user 1000 chattr +i u
            try as_user 1000 chattr +d u
            try as_user 1000 chattr -i f
            """;
        const string undo = """
            try chattr -i f
            try chattr -a g
            try chattr -i d
            try rm -r f g d
            """;
        string folder = Path.GetFullPath(Path.Combine(HostDirectory, "..", mount["/mnt/".Length..], "flags"));
        Directory.CreateDirectory(folder);
        string guest = $"cd {mount}flags";
        try
        {
            string expected = await HostCommand.BashAsync(folder, $"{Words}mkdir host; cd host\n{work}\n{LookAtFlags}");
            Assert.Equal(expected, await GuestAsync($"{Words}{guest}; mkdir guest; cd guest\n{work}\n{LookAtFlags}"));
            Assert.Equal(
                await HostCommand.BashAsync(folder, $"cd host\n{LookAtFlags}"),
                await HostCommand.BashAsync(folder, $"cd guest\n{LookAtFlags}"));

            // What the host has made immutable is so in the guest, until the guest's root changes that.
            Assert.Equal(
                await HostCommand.BashAsync(folder, $"{Words}cd guest; try rm f; {LookAtFlags}"),
                await GuestAsync($"{Words}{guest}/host; try rm f; {LookAtFlags}"));
            Assert.Equal(
                await HostCommand.BashAsync(folder, $"{Words}cd guest\n{undo}"), await GuestAsync($"{Words}{guest}/host\n{undo}"));
        }
        finally
        {
            await HostCommand.BashAsync(folder, "chattr -R -f -i -a . || true");
        }
    }

    private async Task AssertSameWorkAsync(string work, string look)
    {
        string expected = await HostAsync($"{Words}mkdir host; cd host\n{work}\n{look}");
        Assert.Equal(expected, await GuestAsync($"{Words}mkdir guest; cd guest\n{work}\n{look}"));
        // And not only in what the guest remembers.
        Assert.Equal(await HostAsync($"cd host\n{look}"), await HostAsync($"cd guest\n{look}"));
    }
}
