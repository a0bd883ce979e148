using Causeway.Cli;
using Causeway.Cli.Sandbox;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Sandbox;

public sealed class IdentityMapTests
{
    [Theory]
    [InlineData(":0:1000:1:", 0, 1000, 1)]
    [InlineData("/1/100000/65536/", 1, 100000, 65536)]
    [InlineData("::", null, 0, 0)]
    [InlineData(":0:1000:1", null, 0, 0)]
    [InlineData("0:1000:1", null, 0, 0)]
    [InlineData(":0:1000:0:", null, 0, 0)]
    [InlineData(":0:1000:1:2:", null, 0, 0)]
    [InlineData("10100010111", null, 0, 0)]
    [InlineData(":0:4294967295:1:", null, 0, 0)]
    [InlineData(":-1:0:1:", null, 0, 0)]
    public void A_map_has_three_numbers_between_equal_signs(string text, int? inside, int outside, int count)
    {
        if (inside is null)
        {
            Assert.Contains(text, Assert.Throws<UsageException>(() => IdentityMap.Parse("--uid-map", text)).Message);
        }
        else
        {
            Assert.Equal(
                new IdentityRange((uint)inside, (uint)outside, (uint)count), IdentityMap.Parse("--uid-map", text));
        }
    }

    [Fact]
    public void Further_ids_take_the_places_around_ones_own()
    {
        Assert.Equal([new(1000, 1000, 1)], IdentityMap.Around(1000, null));
        Assert.Equal(
            [new(0, 100000, 1000), new(1000, 1000, 1), new(1001, 101000, 64536)],
            IdentityMap.Around(1000, (100000, 65536)));
        Assert.Equal([new(0, 100000, 10), new(1000, 1000, 1)], IdentityMap.Around(1000, (100000, 10)));
    }

    [Fact]
    public void Subordinate_ids_are_found_by_name_or_number()
    {
        string[] lines = ["# comment", "other:1:2", "me:100000:65536", "1001:5:6", "me:9:9"];
        Assert.Equal((100000u, 65536u), IdentityMap.FindSubordinate(lines, 1000, "me"));
        Assert.Equal((5u, 6u), IdentityMap.FindSubordinate(lines, 1001, null));
        Assert.Null(IdentityMap.FindSubordinate(lines, 1002, "you"));
        Assert.Equal("me", IdentityMap.FindName(["root:x:0:0::/:/bin/sh", "me:x:1000:1000::/:/bin/sh"], 1000));
    }

    [Theory]
    [InlineData(false, false, InodeFileHandles.Prefer, "", 0x080000df)]
    [InlineData(true, false, InodeFileHandles.Prefer, "", 0x880000df)]
    [InlineData(true, false, InodeFileHandles.Never, "", 0x880000db)]
    [InlineData(false, true, InodeFileHandles.Never, "", 0x4)]
    [InlineData(true, false, InodeFileHandles.Prefer, "+sys_admin:-MKNOD", 0x802000df)]
    public void Capabilities_are_what_the_options_need(
        bool xattr, bool readOnly, InodeFileHandles handles, string changes, ulong expected)
    {
        var options = new PassthroughOptions
        {
            SharedDirectory = "/", Xattr = xattr, ReadOnly = readOnly, FileHandles = handles,
        };

        Assert.Equal(
            expected, CapabilitySelection.For(options, changes.Length > 0 ? CapabilitySelection.Parse(changes) : []));
    }

    [Fact]
    public void Delegations_need_a_capability_of_their_own()
    {
        var options = new PassthroughOptions { SharedDirectory = "/", VersionTable = VersionTableLayout.Default, TakesDelegations = true };

        Assert.Equal(0x180000dfUL, CapabilitySelection.For(options, []));
    }

    [Theory]
    [InlineData("sys_admin")]
    [InlineData("+")]
    [InlineData("")]
    [InlineData("+sys_admin:")]
    [InlineData("+cap_sys_admin")]
    [InlineData("+21")]
    public void A_list_of_capabilities_that_is_none_is_refused(string list) =>
        Assert.Throws<StartupException>(() => CapabilitySelection.Parse(list));

    [Fact]
    public void What_file_handles_need_cannot_be_taken_away_alone() => Assert.Throws<StartupException>(
        () => CapabilitySelection.For(
            new PassthroughOptions { SharedDirectory = "/" }, [new CapabilityChange(Capability.DacReadSearch, false)]));
}
