using Causeway.Fuzz.Targets;
using Causeway.Tests.VhostUser;

namespace Causeway.Tests.Fuzz;

/// <summary>Gives the fuzz targets what they begin with, and what a long run once found.</summary>
[Collection(OpenDescriptors.Collection)]
public sealed class ReplayTests
{
    private static readonly string _corpus = Path.Combine(AppContext.BaseDirectory, "Fuzz", "Corpus");

    public static TheoryData<string> Targets => [.. FuzzTarget.All.Select(target => target.Name)];

    // A seed that is refused in the middle would lead nowhere.
    [Theory]
    [InlineData("qemu-7.2-one-queue", "start0 start1 stop0 stop1")]
    [InlineData("qemu-11.1-four-queues", "start0 start1 start2 start3 start4 stop0 stop1 stop2 stop3 stop4")]
    public void A_recorded_connection_starts_every_ring(string name, string expected)
    {
        (_, byte[] seed) = VhostUserTarget.Seeds().Single(seed => seed.Name == name);

        IEnumerable<string> calls = VhostUserTarget.Play(seed).Split(' ').Where(call => call.StartsWith('s'));

        Assert.Equal(expected.Split(' '), calls);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void Seeds_and_findings_are_dealt_with(string name)
    {
        FuzzTarget target = FuzzTarget.Find(name);
        List<byte[]> inputs = [.. target.Seeds().Select(seed => seed.Input)];
        Assert.NotEmpty(inputs);
        if (Directory.Exists(Path.Combine(_corpus, name)))
        {
            inputs.AddRange(Directory.GetFiles(Path.Combine(_corpus, name)).Select(File.ReadAllBytes));
        }

        foreach (byte[] input in inputs)
        {
            target.Run(input);
            // And cut short, which is what most inputs of a fuzzer are.
            target.Run(input.AsSpan(0, input.Length / 2));
            target.Run(input.AsSpan(0, input.Length - 1));
        }
    }
}
