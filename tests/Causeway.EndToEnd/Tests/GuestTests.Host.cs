namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    /// <summary>How long cache=auto may show old attributes, and time for an emulated guest to notice.</summary>
    private static readonly TimeSpan _cacheTime = TimeSpan.FromSeconds(1 + 10);

    [Fact]
    public async Task A_change_made_on_the_host_is_seen_as_soon_as_the_cache_mode_promises()
    {
        await HostAsync("echo old >file; echo gone >removed");
        Assert.Equal("old\ngone\n", await GuestAsync("cat file removed; ls >/dev/null"));

        await HostAsync("echo 'new and longer' >file; rm removed; echo added >added");

        const string look = "cat file added; test ! -e removed && echo removed";
        const string expected = "new and longer\nadded\nremoved\n";
        switch (Configuration.Cache)
        {
            case CacheMode.Never:
                Assert.Equal(expected, await GuestAsync(look));
                break;
            case CacheMode.Auto:
                await Deadline.UntilAsync(
                    "the guest sees the host's changes", _cacheTime, async () => await LookAsync() == expected);
                break;
            default:
                // It promises nothing until the guest forgets.
                await GuestAsync(Remount);
                Assert.Equal(expected, await GuestAsync(look));
                break;
        }

        async Task<string> LookAsync() => (await Guest.RunAsync($"cd {GuestDirectory}; {look}")).OutputText;
    }

    [Fact]
    public async Task A_file_system_mounted_below_the_share_is_one_of_its_own()
    {
        string[] devices = (await GuestAsync("stat -c %d /mnt /mnt/submount/.")).Split('\n');
        Assert.NotEqual(devices[0], devices[1]);

        string size = "stat -f -c '%s %b'";
        Assert.Equal(await HostCommand.BashAsync(fixture.Submount, $"{size} ."), await GuestAsync($"{size} /mnt/submount"));
        Assert.NotEqual(await GuestAsync($"{size} /mnt"), await GuestAsync($"{size} /mnt/submount"));

        await GuestAsync("""
            cd /mnt/submount
            echo below >file
            mkdir -p directory/sub
            ln file directory/link
            refused ln file /mnt/across
            cp -r directory /mnt/copied
            rm -r /mnt/copied
            """);
        Assert.Equal("below\n", await File.ReadAllTextAsync(Path.Combine(fixture.Submount, "directory", "link")));
        // The mount point's own number on the host's root file system must not be taken for the mounted root's.
        string inode = "stat -c '%i %h' submount/file submount/directory/link";
        Assert.Equal(await HostCommand.BashAsync(fixture.Share, inode), await GuestAsync($"cd /mnt; {inode}"));
    }
}
