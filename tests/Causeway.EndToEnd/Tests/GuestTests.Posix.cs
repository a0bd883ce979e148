using Causeway.Posix;

namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    [Fact]
    public async Task System_calls_answer_as_on_the_hosts_own_file_system()
    {
        string program = await PosixProgram.PathAsync;
        File.Copy(program, HostPath("posix-checks"));

        // Both at the same time, each in its own directory of the same file system.
        Task<string> hostRun = HostAsync("mkdir host; ./posix-checks host");
        string guest = await GuestAsync("cp posix-checks /tmp/; mkdir guest; /tmp/posix-checks guest; rm /tmp/posix-checks", seconds: 420);
        string host = await hostRun;
        // For whoever looks for the reason of a difference.
        await File.WriteAllTextAsync(Path.Combine(fixture.Folder, "posix-guest.txt"), guest);
        await File.WriteAllTextAsync(Path.Combine(fixture.Folder, "posix-host.txt"), host);

        Assert.True(PosixChecks.Count(host) > 1000, "the program has not run to its end");
        Assert.Empty(PosixProgram.Compare(host, guest, Configuration));
    }
}
