using System.CommandLine;
using Causeway.Cli;
using Causeway.Cli.Options;
using Causeway.Passthrough;

namespace Causeway.Tests.Cli;

/// <summary>Options for ids, extended attributes, lists and labels (passthrough.md 1.2, 1.3; cases T4, T5, X14, X15).</summary>
public sealed class PrivilegeOptionsTests
{
    [Theory]
    [InlineData("", NegotiationMode.Never)]
    [InlineData("--posix-acl", NegotiationMode.Always)]
    [InlineData("--posix-acl --cache auto", NegotiationMode.Always)]
    [InlineData("--posix-acl=never", NegotiationMode.Never)]
    [InlineData("--posix-acl=AUTO", NegotiationMode.Auto)]
    [InlineData("--posix-acl=never --posix-acl=always", NegotiationMode.Always)]
    [InlineData("-o posix_acl", NegotiationMode.Always)]
    [InlineData("-o no_posix_acl --posix-acl", NegotiationMode.Never)]
    public void Access_control_lists_have_three_modes(string arguments, NegotiationMode mode)
    {
        Assert.Equal(mode, Read(arguments).Passthrough.PosixAcl);
        string forLabels = arguments
            .Replace("posix-acl", "security-label", StringComparison.Ordinal)
            .Replace("posix_acl", "security_label", StringComparison.Ordinal);
        Assert.Equal(mode, Read(forLabels).Passthrough.SecurityLabel);
    }

    [Theory]
    [InlineData("--xattr", true)]
    [InlineData("--xattrmap :map::user.virtiofs.:", true)]
    [InlineData("--posix-acl=auto", true)]
    [InlineData("--security-label", true)]
    [InlineData("--posix-acl=never", false)]
    [InlineData("", false)]
    public void Each_of_them_implies_extended_attributes(string arguments, bool isOn) =>
        Assert.Equal(isOn, Read(arguments).Passthrough.HasXattrs);

    [Fact]
    public void A_map_is_taken_in_both_forms()
    {
        foreach (string arguments in new[] { "--xattrmap=:map:security.:trusted.x.:", "-o xattrmap=:map:security.:trusted.x.:" })
        {
            Assert.NotNull(Read(arguments).Passthrough.XattrMap?.RemappedCapability);
        }
    }

    [Theory]
    [InlineData("--xattrmap :map::user.virtiofs.: --posix-acl", 1)]
    [InlineData("--xattrmap :map:security.:user.virtiofs.: --posix-acl", 0)]
    [InlineData("--xattrmap :map::user.virtiofs.:", 0)]
    public void A_map_that_hides_lists_from_the_host_is_worth_a_warning(string arguments, int warnings) =>
        Assert.Equal(warnings, Read(arguments).Warnings.Count(text => text.Contains("--xattrmap", StringComparison.Ordinal)));

    [Theory]
    [InlineData("", false)]
    [InlineData("--modcaps=+linux_immutable", true)]
    [InlineData("--modcaps=+sys_admin:+LINUX_IMMUTABLE:-mknod", true)]
    [InlineData("--modcaps=+linux_immutable:-linux_immutable", false)]
    [InlineData("--modcaps=-linux_immutable", false)]
    public void Giving_the_capability_for_it_lets_guests_make_files_immutable(string arguments, bool isAllowed) =>
        Assert.Equal(isAllowed, Read(arguments).Passthrough.AllowImmutable);

    [Fact]
    public void Translations_add_up()
    {
        PassthroughOptions options = Read(
            "--translate-uid map:1:2:3 --translate-uid=forbid-guest:9:1 --translate-gid squash-host:0:7:10").Passthrough;
        Assert.True(options.UserIds.TryToHost(3, out uint host));
        Assert.Equal(4U, host);
        Assert.False(options.UserIds.TryToHost(9, out _));
        Assert.Equal(7U, options.GroupIds.ToGuest(5));
        Assert.True(Read("").Passthrough.UserIds.IsIdentity);
    }

    [Theory]
    [InlineData("--posix-acl=sometimes", "'--posix-acl' takes one of never, auto, always")]
    [InlineData("--security-label=1", "'--security-label' takes one of")]
    [InlineData("--xattrmap :ok:all:a:b:", "'--xattrmap': the rules do not decide about every name")]
    [InlineData("--xattrmap :okay:all:::", "'--xattrmap': rule 1 has the type 'okay'")]
    [InlineData("--translate-uid swap:1:2:3", "'--translate-uid': 'swap:1:2:3' does not begin with one of")]
    [InlineData("--translate-gid map:1:2", "'--translate-gid': 'map:1:2' has 2 numbers")]
    public void What_cannot_be_read_is_a_usage_error(string arguments, string message)
    {
        UsageException exception = Assert.Throws<UsageException>(() => Read(arguments));
        Assert.Contains(message, exception.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', exception.Message);
    }

    [Theory]
    [InlineData("--translate-uid map:1:2:3 --translate-uid map:3:9:1", "'--translate-uid': 'map:1:2:3' and 'map:3:9:1'")]
    [InlineData("--translate-gid map:4294967295:0:1", "'--translate-gid': 'map:4294967295:0:1' goes beyond")]
    [InlineData("--translate-uid forbid-guest:4294967295:2", "goes beyond")]
    public void What_contradicts_itself_is_a_failed_start(string arguments, string message)
    {
        StartupException exception = Assert.Throws<StartupException>(() => Read(arguments));
        Assert.Contains(message, exception.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', exception.Message);
    }

    private static ServeOptions Read(string arguments)
    {
        var syntax = new ServeSyntax();
        var command = new RootCommand();
        syntax.AddAllTo(command);
        ParseResult parsed = command.Parse(
            ["--shared-dir", "/srv", "--socket-path", "/run/x.sock", "--sandbox", "none",
            .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
        Assert.Empty(parsed.Errors);
        return syntax.Read(parsed);
    }
}
