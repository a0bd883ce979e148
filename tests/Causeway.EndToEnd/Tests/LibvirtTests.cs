using System.Security;

namespace Causeway.EndToEnd;

/// <summary>
/// The daemon in virtiofsd's place under libvirt: one guest with two shares, of which the first names the program
/// (<c>&lt;binary path='...'/></c>) and the second leaves finding it to libvirt, by its description.
/// </summary>
public sealed class LibvirtTests
{
    // What the guest does in the first share. Its init has that mounted; the second it mounts by itself.
    private const string Command =
        """
        set -e
        cat hello
        echo 'one, by the guest' >written
        mkdir /second
        mount -t virtiofs second /second
        cat /second/hello
        echo 'two, by the guest' >/second/written
        """;

    private readonly string _folder = Path.Combine(Repository.Root, "artifacts", "end-to-end", "libvirt");

    [Fact]
    public async Task A_guest_of_libvirts_mounts_shares_of_a_daemon_named_by_path_and_of_one_found_by_description()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "NOT CHECKED: libvirt's system daemon needs root");
        Assert.SkipUnless(
            File.Exists(Path.Combine(Repository.Root, "artifacts", "causeway")),
            "NOT CHECKED: there is no artifacts/causeway to install; run ./build");
        await PrepareAsync();
        string domain = Path.Combine(_folder, "domain.xml");
        await File.WriteAllTextAsync(domain, await DescribeDomainAsync());
        string script = Path.Combine(_folder, "run");
        // Until the domain is gone, which is when the guest has switched itself off.
        await File.WriteAllTextAsync(script, $"""
            set -eu
            virsh --quiet create '{domain}'
            virsh domid causeway >/dev/null
            for process in /proc/[0-9]*; do
                case $(readlink $process/exe || true) in
                    */bin/causeway) echo "$(readlink $process/ns/mnt) $(readlink $process/ns/net)" ;;
                esac
            done >'{_folder}/daemons'
            echo "$(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net)" >'{_folder}/here'
            turns=0
            while virsh domstate causeway >/dev/null 2>&1; do
                turns=$((turns + 1))
                [ $turns -lt 1200 ] || exit 3
                sleep 0.2
            done
            """);

        await HostCommand.ScriptAsync(
            "with-libvirt", _folder, Path.Combine(_folder, "descriptions"), "sh", script);

        Assert.Equal("0\n", await ReadAsync("status"));
        Assert.Equal("hello one\nhello two\n", await ReadAsync("stdout"));
        Assert.Equal("", await ReadAsync("stderr"));
        Assert.Equal("one, by the guest\n", await ReadAsync("one/written"));
        Assert.Equal("two, by the guest\n", await ReadAsync("two/written"));
        // Of each daemon one process waits where libvirt started it, and one serves from its sandbox.
        string here = (await ReadAsync("here")).TrimEnd();
        string[] daemons = (await ReadAsync("daemons")).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(4, daemons.Length);
        Assert.Equal(2, daemons.Count(namespaces => namespaces == here));
        // A mount namespace, and a network namespace, each.
        Assert.Equal(3, daemons.Select(namespaces => namespaces.Split(' ')[0]).Distinct().Count());
        Assert.Equal(3, daemons.Select(namespaces => namespaces.Split(' ')[1]).Distinct().Count());

        // Both were ours, ran to their ends, and had nothing to complain about but libvirt's old form of options.
        foreach (string share in (string[])["first", "second"])
        {
            string[] lines = (await ReadAsync($"causeway-ua-{share}-virtiofsd.log")).Split('\n');
            Assert.Contains(lines, line => line.Contains("Waiting for vhost-user socket connection", StringComparison.Ordinal));
            Assert.Contains(lines, line => line.Contains("Client disconnected", StringComparison.Ordinal));
            Assert.DoesNotContain(lines, line => line.Contains("ERROR", StringComparison.Ordinal));
            Assert.DoesNotContain(
                lines,
                line => line.Contains("WARN", StringComparison.Ordinal)
                    && !line.Contains("'-o' is deprecated", StringComparison.Ordinal)
                    && !line.Contains("The limit of open files is", StringComparison.Ordinal));
        }
    }

    private static string Escape(string text) => SecurityElement.Escape(text);

    private async Task PrepareAsync()
    {
        if (Directory.Exists(_folder))
        {
            Directory.Delete(_folder, recursive: true);
        }

        foreach (string share in (string[])["one", "two"])
        {
            Directory.CreateDirectory(Path.Combine(_folder, share));
            await File.WriteAllTextAsync(Path.Combine(_folder, share, "hello"), $"hello {share}\n");
        }

        Directory.CreateDirectory(Path.Combine(_folder, "words"));
        foreach ((string name, string text) in ((string, string)[])
            [("mode", "command"), ("tag", "first"), ("command", Command)])
        {
            await File.WriteAllTextAsync(Path.Combine(_folder, "words", name), text);
        }

        await HostCommand.ScriptAsync("install-guest-tools", "libvirt");
        await HostCommand.ScriptAsync(
            "install-causeway", "--prefix", Path.Combine(_folder, "usr"), "--descriptions", Path.Combine(_folder, "descriptions"));
    }

    private async Task<string> DescribeDomainAsync()
    {
        string platform = await HostCommand.ScriptAsync("guest-platform", "debian12");
        string initramfs = await HostCommand.ScriptAsync("guest-initramfs", platform);
        string Port(string type, string name) =>
            $"<channel type='{type}'>{(type == "file" ? $"<source path='{Escape(Path.Combine(_folder, name))}'/>" : "")}"
            + $"<target type='virtio' name='{name}'/></channel>";
        // QEMU's option parser ends a value at a comma; two are one.
        string Word(string name) =>
            "<qemu:arg value='-fw_cfg'/><qemu:arg value='name=opt/causeway/" + name + ",file="
            + Escape(Path.Combine(_folder, "words", name).Replace(",", ",,", StringComparison.Ordinal)) + "'/>";
        return $"""
            <domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
              <name>causeway</name>
              <memory unit='MiB'>512</memory>
              <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
              <vcpu>1</vcpu>
              <os>
                <type arch='x86_64' machine='q35'>hvm</type>
                <kernel>{Escape(Path.Combine(platform, "kernel", "vmlinuz"))}</kernel>
                <initrd>{Escape(initramfs)}</initrd>
                <cmdline>console=ttyS0 panic=-1 mitigations=off nowatchdog</cmdline>
              </os>
              <!-- By ACPI the guest finds what -fw_cfg passes, and switches itself off. -->
              <features><acpi/></features>
              <cpu mode='maximum'/>
              <devices>
                <emulator>/usr/bin/qemu-system-x86_64</emulator>
                <filesystem type='mount' accessmode='passthrough'>
                  <driver type='virtiofs' queue='1024'/>
                  <binary path='{Escape(Path.Combine(_folder, "usr", "libexec", "causeway", "virtiofsd"))}' xattr='on'>
                    <cache mode='always'/>
                    <lock posix='off' flock='off'/>
                  </binary>
                  <source dir='{Escape(Path.Combine(_folder, "one"))}'/>
                  <target dir='first'/>
                  <alias name='ua-first'/>
                </filesystem>
                <filesystem type='mount' accessmode='passthrough'>
                  <driver type='virtiofs'/>
                  <source dir='{Escape(Path.Combine(_folder, "two"))}'/>
                  <target dir='second'/>
                  <alias name='ua-second'/>
                </filesystem>
                <serial type='file'><source path='{Escape(Path.Combine(_folder, "console.log"))}'/></serial>
                {Port("null", "stdin")}
                {Port("file", "stdout")}
                {Port("file", "stderr")}
                {Port("file", "status")}
                <memballoon model='none'/>
              </devices>
              <qemu:commandline>{Word("mode")}{Word("tag")}{Word("command")}</qemu:commandline>
            </domain>
            """;
    }

    private Task<string> ReadAsync(string name) => File.ReadAllTextAsync(Path.Combine(_folder, name));
}
